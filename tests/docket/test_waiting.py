"""What happens to tasks that wait: their order, what ends their waiting, and what Docket sees."""

from __future__ import annotations

# ruff: noqa: B008
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from docket import Docket, ExecutionCancelled

from limiter_core import Limiter, StoreUnavailable
from limiter_core.jobs import Job, JobGate
from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConflictResolution, store_of
from limiter_docket._queue import bring_forward, when_of
from tests.docket._tools import (
    TaskRecord,
    most_at_once,
    parked,
    until,
    until_true,
    working,
)

from ._waiting import holding, states, waiting_in


async def test_they_run_in_the_order_in_which_they_were_added(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        await (record.body(n, 0.001) if record.began else record.hold(n))

    for each in range(60):
        await any_docket.add(bill)(each)
    async with working(any_docket):
        await until_true(parked(any_docket, 59), "all others are in line")
        record.go_on.set()
        await until(lambda: len(record.bodies) == 60, "all have run")
    # Of those that the worker takes at once, any may find the slot free; the others are in line.
    assert sorted(record.began) == list(range(60))
    assert record.began[1:] == sorted(record.began[1:])


async def test_a_waiting_task_holds_no_worker(any_docket: Docket) -> None:
    record = TaskRecord()
    free: list[int] = []

    async def unlimited(n: int):
        free.append(n)

    task = holding(record)
    for each in range(20):
        await any_docket.add(task)(each)
    async with working(any_docket, concurrency=2):
        await until_true(parked(any_docket, 19), "nineteen wait")
        await any_docket.add(unlimited)(1)
        await until(lambda: free, "the unlimited task runs")
        assert len(record.began) == 1  # of the first two, which ask at once, either
        record.go_on.set()
        await until(lambda: len(record.began) == 20, "all run")


async def test_priority_and_fair_order(any_docket: Docket) -> None:
    record = TaskRecord()

    async def ranked(
        n: int,
        rank: int,
        c: ConcurrencyLimit = ConcurrencyLimit(
            LIMIT_BY.constant("k"),
            on_conflict=ConflictResolution.PRIORITY,
            priority=lambda args: args["rank"],
        ),
    ):
        await record.hold(n)

    async with working(any_docket):
        await any_docket.add(ranked)(0, 0)
        await until(lambda: record.began, "the first runs")
        for n, rank in enumerate((1, 9, 5, 9), start=1):
            await any_docket.add(ranked)(n, rank)
        await until_true(parked(any_docket, 4), "four wait")
        record.go_on.set()
        await until(lambda: len(record.began) == 5, "all run")
    assert record.began == [0, 2, 4, 3, 1]


async def test_the_tenants_take_turns(any_docket: Docket) -> None:
    record = TaskRecord()

    async def task(
        tenant: str,
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"), fair_by="tenant"),
    ):
        await record.hold(tenant)

    async with working(any_docket):
        await any_docket.add(task)("a")
        await until(lambda: record.began, "the first runs")
        for tenant in ("a", "a", "a", "b"):
            await any_docket.add(task)(tenant)
        await until_true(parked(any_docket, 4), "four wait")
        record.go_on.set()
        await until(lambda: len(record.began) == 5, "all run")
    assert record.began.index("b") < 4


async def test_a_cancelled_one_loses_its_ticket_at_once(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        first = await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        second = await any_docket.add(task)(1)
        third = await any_docket.add(task)(2)
        await until_true(parked(any_docket, 2), "two wait")
        await any_docket.cancel(second.key)

        async def only_one() -> bool:
            return await waiting_in(any_docket) == 1

        await until_true(only_one, "one ticket is left")
        record.go_on.set()
        await until(lambda: 2 in record.began, "the third runs")
    assert await states(first, second, third) == ["completed", "cancelled", "completed"]
    with pytest.raises(ExecutionCancelled):
        await second.get_result()
    assert record.began == [0, 2]


async def test_a_cancelled_holder_hands_its_slot_on(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with working(any_docket):
        first = await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        await any_docket.add(task)(1)
        await until_true(parked(any_docket, 1), "one waits")
        await any_docket.cancel(first.key)
        await until(lambda: record.began == [0, 1], "the second runs")
        record.go_on.set()
    assert await states(first) == ["cancelled"]
    assert most_at_once(record.bodies) == 1


async def test_an_operator_in_another_process_lets_tasks_in_at_once(any_docket: Docket) -> None:
    record = TaskRecord()
    task = holding(record)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(any_docket))
        stack.callback(record.go_on.set)
        for each in range(2):
            await any_docket.add(task)(each)
        await until_true(parked(any_docket, 1), "one waits")
        other = Docket(name=any_docket.name, url=any_docket.url)
        await stack.enter_async_context(other)
        limiter = await stack.enter_async_context(Limiter(await store_of(other)))
        await limiter.set_limit("k", 2)
        await until(lambda: len(record.began) == 2, "both run", patience=5)
        await limiter.reset_limit("k")


async def test_a_holder_that_waited_for_less_than_a_poll_hears_its_cancel(
    any_docket: Docket,
) -> None:
    record = TaskRecord()
    task = holding(record)
    async with AsyncExitStack() as stack:
        interval = timedelta(seconds=1)
        await stack.enter_async_context(working(any_docket, minimum_check_interval=interval))
        stack.callback(record.go_on.set)
        first = await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        second = await any_docket.add(task)(1)
        await any_docket.add(task)(2)
        await until_true(parked(any_docket, 2), "two wait")
        await any_docket.cancel(first.key)
        await until(lambda: record.began == [0, 1], "the second runs")
        await any_docket.cancel(second.key)
        await until(lambda: record.began == [0, 1, 2], "the third runs", patience=5)
    assert await states(first, second) == ["cancelled", "cancelled"]
    assert most_at_once(record.bodies) == 1


async def test_a_cancelled_one_that_could_not_ask_again_loses_its_ticket_as_well(
    any_docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = TaskRecord()
    task = holding(record)

    asked: list[str] = []

    async def away(_: JobGate, job: Job, *__: Any) -> None:
        asked.append(job.ticket)
        raise StoreUnavailable("away")

    async def is_parked_again() -> bool:
        return bool(asked) and await parked(any_docket, 1)()

    async def no_task_waits() -> bool:
        return await waiting_in(any_docket) == 0

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(any_docket))
        stack.callback(record.go_on.set)
        await any_docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        waiting = await any_docket.add(task, key="b")(1)
        await until_true(parked(any_docket, 1), "one waits")
        with monkeypatch.context() as patch:
            patch.setattr(JobGate, "admit", away)
            assert await bring_forward(any_docket, "b", when_of(waiting))
            await until_true(is_parked_again, "it is parked again")
        await any_docket.cancel("b")
        await until_true(no_task_waits, "no ticket is left")
