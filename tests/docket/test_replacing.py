"""Tasks that are added again, replaced, cleared or struck while they wait."""

from __future__ import annotations

# ruff: noqa: B008
import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from docket import Agenda, Docket, Execution, ExecutionCancelled
from docket.execution import Disposition, ExecutionState

from limiter_docket import ConcurrencyLimit, _run, set_store
from tests.docket._tools import (
    TaskRecord,
    finish,
    limiter_of,
    most_at_once,
    parked,
    quick,
    until,
    until_true,
    working,
)

from ._waiting import holding, states, waiting_in


async def test_the_same_key_is_added_once_while_it_waits(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        await any_docket.add(task, key="a")(0)
        await until(lambda: record.began, "the first runs")
        await any_docket.add(task, key="b")(1)
        await until_true(parked(any_docket, 1), "one waits")
        again = await any_docket.add(task, key="b")(2)
        assert again.disposition is Disposition.ALREADY_SCHEDULED
        record.go_on.set()
        await until(lambda: len(record.began) == 2, "both run")
    assert record.began == [0, 1]


async def test_a_replaced_one_has_a_ticket_of_its_own(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        await any_docket.add(task, key="a")(0)
        await until(lambda: record.began, "the first runs")
        await any_docket.add(task, key="b")(1)
        await until_true(parked(any_docket, 1), "one waits")
        await any_docket.replace(task, datetime.now(UTC), "b")(2)

        async def both_wait() -> bool:
            return await waiting_in(any_docket) == 2

        await until_true(both_wait, "the ticket of the replaced one is still there")
        record.go_on.set()
        await until(lambda: 2 in record.began, "the replacement runs")

        async def no_task_waits() -> bool:
            return await waiting_in(any_docket) == 0

        await until_true(no_task_waits, "no ticket is left")
    assert record.began == [0, 2]


async def test_after_clear_the_slot_goes_to_those_added_later(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        for each in range(1, 30):
            await any_docket.add(task)(each)
        await until_true(parked(any_docket, 29), "all wait")
        await any_docket.clear()
        await any_docket.add(task)(99)
        await until_true(parked(any_docket, 1), "one waits")
        record.go_on.set()
        await until(lambda: len(record.began) == 2, "the new one runs", patience=5)
    assert record.began == [0, 99]


async def test_clear_ends_also_one_that_is_about_to_park(
    any_docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = TaskRecord()
    task = holding(record)
    park = _run.park

    async def cleared(execution: Execution, *arguments: Any) -> str:
        if not output:
            await any_docket.clear()
        output.append(await park(execution, *arguments))
        return output[-1]

    output: list[str] = []
    monkeypatch.setattr(_run, "park", cleared)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(any_docket))
        stack.callback(record.go_on.set)
        await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        gone = await any_docket.add(task, key="b")(1)
        with pytest.raises(ExecutionCancelled):
            await gone.get_result(timeout=timedelta(seconds=5))
        assert await waiting_in(any_docket) == 0
        again = await any_docket.add(task, key="b")(2)
        assert again.disposition is Disposition.SCHEDULED
        record.go_on.set()
        await until(lambda: record.began == [0, 2], "the new one runs")
    assert output[0] == "cancelled"


async def test_a_struck_one_lets_the_next_pass(docket: Docket) -> None:
    set_store(docket, claim=0.5)
    record = TaskRecord()
    task = holding(record)
    async with working(docket):
        await docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        struck = await docket.add(task)(13)
        await docket.add(task)(2)
        await until_true(parked(docket, 2), "two wait")
        await docket.strike(task, "n", "==", 13)
        await asyncio.sleep(0)
        record.go_on.set()
        await until(lambda: 2 in record.began, "the next one runs")
    assert await states(struck) == ["cancelled"]
    assert record.began == [0, 2]


async def test_an_agenda_is_scattered_and_limited(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        await record.body(n)

    agenda = Agenda()
    for each in range(5):
        agenda.add(bill)(each)
    await agenda.scatter(any_docket, over=timedelta(milliseconds=200))
    await finish(any_docket)
    assert sorted(record.began) == [0, 1, 2, 3, 4]
    assert most_at_once(record.bodies) == 1


async def test_what_docket_shows_of_a_waiting_task(docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(docket):
        await docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        when = datetime.now(UTC)
        waiting = await docket.add(task, when=when)(1)
        await until_true(parked(docket, 1), "one waits")
        await waiting.sync()
        assert waiting.state is ExecutionState.SCHEDULED
        assert (waiting.worker, waiting.started_at) == (None, None)
        snapshot = await docket.snapshot()
        assert [each.key for each in snapshot.future] == [waiting.key]
        assert [each.when for each in snapshot.future] == [when]  # as it was wanted
        limiter = await limiter_of(docket)
        state = await limiter.inspect("k")
        assert [each.label for each in state.waiters] == [f"task({waiting.key})"]
        record.go_on.set()
        await waiting.get_result(timeout=timedelta(seconds=10))


async def test_two_workers_on_one_docket_object_share_the_line(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        await record.body(n, 0.002)

    for each in range(20):
        await any_docket.add(bill)(each)
    async with quick(any_docket, name="a") as one, quick(any_docket, name="b") as two:
        await asyncio.gather(one.run_until_finished(), two.run_until_finished())
    assert sorted(record.began) == list(range(20))
    assert most_at_once(record.bodies) == 1
