"""Tasks that newer tasks supersede or stop, and tasks that are refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from docket import Docket, Execution, ExecutionCancelled

from limiter_core.requests import Notice
from limiter_docket import ConflictResolution, _run, set_store
from limiter_docket._gates import WorkerGates
from limiter_memory import MemoryStore
from tests.docket._tools import (
    TaskRecord,
    gates_of,
    most_at_once,
    parked,
    quick,
    until,
    until_true,
    working,
)

from ._waiting import holding, states, waiting_in


async def test_cancel_drops_the_newcomer(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record, on_conflict=ConflictResolution.CANCEL)
    async with working(any_docket):
        first = await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        second = await any_docket.add(task)(1)
        with pytest.raises(ExecutionCancelled):
            await second.get_result(timeout=timedelta(seconds=10))
        record.go_on.set()
        await first.get_result(timeout=timedelta(seconds=10))
    assert record.began == [0]


async def test_keep_latest_cancels_those_that_waited(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record, on_conflict=ConflictResolution.KEEP_LATEST)
    async with working(any_docket):
        added = [await any_docket.add(task)(0)]
        await until(lambda: record.began, "the first runs")
        for each in (1, 2, 3):
            added.append(await any_docket.add(task)(each))
            await until_true(parked(any_docket, 1), "one waits")
        for each in added[1:3]:
            with pytest.raises(ExecutionCancelled):
                await each.get_result(timeout=timedelta(seconds=10))
        record.go_on.set()
        await added[3].get_result(timeout=timedelta(seconds=10))
    assert record.began == [0, 3]


async def test_the_latest_wins(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record, on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with working(any_docket):
        first = await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        second = await any_docket.add(task)(1)
        await until(lambda: record.began == [0, 1], "the second runs")
        record.go_on.set()
        await second.get_result(timeout=timedelta(seconds=10))
    assert await states(first, second) == ["cancelled", "completed"]
    assert most_at_once(record.bodies) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_latest_wins_also_if_it_replaces_the_run_it_stops(
    any_docket: Docket, workers: int
) -> None:
    record = TaskRecord()
    task = holding(record, on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with AsyncExitStack() as stack:
        for each in range(workers):
            await stack.enter_async_context(working(any_docket, name=f"w{each}"))
        stack.callback(record.go_on.set)
        await any_docket.add(task, key="a")(0)
        await until(lambda: record.began, "the first runs")
        await any_docket.replace(task, datetime.now(UTC), "a")(1)
        await until(lambda: record.began == [0, 1], "the second runs", patience=5)
    assert most_at_once(record.bodies) == 1


async def test_a_cancel_that_is_heard_late_spares_what_was_added_since(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        await any_docket.add(task, key="b")(1)
        await until_true(parked(any_docket, 1), "one waits")
        await any_docket._publish(any_docket.cancel_channel("b"), "b")
        await asyncio.sleep(0.2)
        waiting = await waiting_in(any_docket)
        record.go_on.set()
        await until(lambda: len(record.began) == 2, "both run", patience=5)
    assert waiting == 1


async def test_a_notice_that_comes_again_takes_no_slot_from_a_body(
    docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_store(docket, MemoryStore())  # in the docket's own Redis, the store wakes them itself
    record = TaskRecord()
    task = holding(record)
    notices: list[Notice] = []
    wake = WorkerGates._wake

    async def noted(self: WorkerGates, notice: Notice) -> bool:
        notices.append(notice)
        return await wake(self, notice)

    monkeypatch.setattr(WorkerGates, "_wake", noted)
    async with working(docket):
        first = await docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        await docket.add(task)(1)
        await docket.add(task)(2)
        await until_true(parked(docket, 2), "two wait")
        await docket.cancel(first.key)
        await until(lambda: len(record.began) == 2, "the second runs")
        gates = gates_of(docket)
        gate = await gates.gate(None)
        for again in (True, False):  # the second time says that it is gone, so its ticket goes
            assert await wake(gates, notices[-1]) is again
        assert not await gate.drop(notices[-1].id)
        record.go_on.set()
        await until(lambda: len(record.began) == 3, "all run")
    assert most_at_once(record.bodies) == 1


async def test_a_delivery_that_is_too_late_to_park_leaves_the_ticket_to_the_other(
    docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = TaskRecord()
    task = holding(record)
    park, halted, go_on = _run.park, record.event(), record.event()

    async def slow(execution: Execution, *arguments: Any) -> str:
        if execution.key == "b" and not execution.redelivered:
            halted.set()
            await go_on.wait()
        output = await park(execution, *arguments)
        answers.append(output)
        return output

    answers: list[str] = []
    monkeypatch.setattr(_run, "park", slow)
    options: dict[str, Any] = {"redelivery_timeout": timedelta(milliseconds=200)}
    async with quick(docket, name="a", **options) as one, quick(docket, name="b", **options) as two:
        monkeypatch.setattr(one, "_renew_leases", _nothing)
        running = [asyncio.ensure_future(one.run_forever())]
        await docket.add(task, key="a")(0)
        await until(lambda: record.began, "the first runs")
        await docket.add(task, key="b")(1)
        await until(halted.is_set, "the second is about to park")
        running.append(asyncio.ensure_future(two.run_forever()))
        await until_true(parked(docket, 1), "another delivery of it is parked")
        go_on.set()
        await until(lambda: "moved" in answers, "the other got that answer")
        waiting = await waiting_in(docket)
        record.go_on.set()
        await until(lambda: len(record.began) == 2, "both run", patience=5)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert waiting == 1
    assert record.began == [0, 1]


async def _nothing(*_: Any) -> None:
    """Renew nothing."""


async def test_a_full_line_and_a_long_wait_end_in_cancelled(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record, max_waiting=1, timeout=0.5)
    async with working(any_docket):
        await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        impatient = await any_docket.add(task)(1)
        await until_true(parked(any_docket, 1), "one waits")
        surplus = await any_docket.add(task)(2)
        for each in (surplus, impatient):
            with pytest.raises(ExecutionCancelled):
                await each.get_result(timeout=timedelta(seconds=10))
        record.go_on.set()
    assert record.began == [0]
