"""What happens to tasks that wait: their order, what ends their waiting, and what Docket sees."""

# ruff: noqa: B008

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from docket import Agenda, Docket, Execution, ExecutionCancelled
from docket.execution import Disposition, ExecutionState

from limiter_core import Limiter, StoreUnavailable
from limiter_core.jobs import JobGate
from limiter_core.requests import Notice
from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConflictResolution, _run, set_store, store_of
from limiter_docket._gates import WorkerGates
from limiter_docket._queue import bring_forward, waits_for, when_of
from limiter_memory import MemoryStore
from tests.docket._tools import (
    TaskRecord,
    finish,
    gates_of,
    limiter_of,
    most_at_once,
    parked,
    quick,
    until,
    until_true,
    working,
)


def holding(record: TaskRecord, **options: Any) -> Any:
    """Return a task whose bodies are held, one at a time."""

    async def task(
        n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"), 1, **options)
    ) -> None:
        await record.hold(n)

    return task


async def states(*executions: Execution) -> list[str]:
    for each in executions:
        await each.sync()
    return [each.state.value for each in executions]


async def waiting_in(docket: Docket, key: str = "k") -> int:
    snapshot = await (await limiter_of(docket)).inspect(key)
    return snapshot.waiting


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

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    async def forgotten() -> bool:
        return not (await waits_for(any_docket, "b"))[2]

    async def nobody_waits() -> bool:
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
            await until_true(forgotten, "it is parked, and where it waited is not known")
        await any_docket.cancel("b")
        await until_true(nobody_waits, "no ticket is left")


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
        await until(lambda: "moved" in answers, "the other has heard so")
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

        async def nobody_waits() -> bool:
            return await waiting_in(any_docket) == 0

        await until_true(nobody_waits, "no ticket is left")
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
