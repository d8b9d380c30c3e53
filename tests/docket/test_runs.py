"""Limits beside Docket's other dependencies, lost leases, redeliveries, stores that are away."""

from __future__ import annotations

# ruff: noqa: B008
import asyncio
from datetime import timedelta
from typing import Any

import pytest
from docket import (
    Cron,
    CurrentExecution,
    Depends,
    Docket,
    Execution,
    ExponentialRetry,
    Perpetual,
    Retry,
    Timeout,
)

from limiter_core import LeaseLost, Limiter, StoreUnavailable
from limiter_core.jobs import Held, JobGate
from limiter_docket import LIMIT_BY, ConcurrencyLimit
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


@pytest.mark.parametrize(
    "retry", [Retry(attempts=3), ExponentialRetry(3, timedelta(milliseconds=1))], ids=["r", "e"]
)
async def test_waiting_spends_no_attempt(any_docket: Docket, retry: Retry) -> None:
    record = TaskRecord()

    async def flaky(
        n: int,
        execution: Execution = CurrentExecution(),
        retry: Retry = retry,
        c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1),
    ):
        await record.body((n, execution.attempt))
        raise RuntimeError("so it goes")

    for each in range(4):
        await any_docket.add(flaky)(each)
    await finish(any_docket)
    assert sorted(record.began) == [(n, attempt) for n in range(4) for attempt in (1, 2, 3)]
    assert most_at_once(record.bodies) == 1


async def test_a_perpetual_task_goes_on_and_takes_turns(any_docket: Docket) -> None:
    record = TaskRecord()

    async def forever(
        n: int,
        perpetual: Perpetual = Perpetual(),
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k")),
    ):
        await record.body(n, 0.001)
        if record.began.count(n) == 10:
            perpetual.cancel()

    await any_docket.add(forever, key="one")(1)
    await any_docket.add(forever, key="two")(2)
    await finish(any_docket)
    assert sorted(record.began) == [1] * 10 + [2] * 10
    assert most_at_once(record.bodies) == 1


async def test_cron_beside_a_limit(docket: Docket) -> None:
    record = TaskRecord()

    async def tick(
        cron: Cron = Cron("* * * * *", automatic=False),
        c: ConcurrencyLimit = ConcurrencyLimit(),
    ):
        record.began.append(c.concurrency_key)

    await docket.add(tick, key="tick")()
    async with working(docket):
        await until(lambda: record.began, "it ticks")
        await until_true(parked(docket, 1), "the next is scheduled")
        assert await (await limiter_of(docket)).inspect("tick()")
    assert record.began == ["tick()"]


async def test_a_timeout_gives_the_slot_back(any_docket: Docket) -> None:
    record = TaskRecord()

    async def slow(
        n: int,
        timeout: Timeout = Timeout(timedelta(milliseconds=50)),
        c: ConcurrencyLimit = ConcurrencyLimit(),
    ):
        await record.body(n, 30)

    for each in range(3):
        await any_docket.add(slow)(each)
    await finish(any_docket)
    assert sorted(record.began) == [0, 1, 2]
    assert most_at_once(record.bodies) == 1


@pytest.mark.parametrize("first", [True, False])
async def test_a_dependency_that_fails_gives_the_slot_back(any_docket: Docket, first: bool) -> None:
    def broken() -> None:
        raise RuntimeError("no connection")

    async def before(
        d: None = Depends(broken), c: ConcurrencyLimit = ConcurrencyLimit("n"), n: int = 1
    ):
        raise AssertionError("never")

    async def after(
        c: ConcurrencyLimit = ConcurrencyLimit("n"), d: None = Depends(broken), n: int = 1
    ):
        raise AssertionError("never")

    async def well(c: ConcurrencyLimit = ConcurrencyLimit("n"), n: int = 1):
        return "done"

    failed = await any_docket.add(before if first else after)()
    done = await any_docket.add(well)()
    await finish(any_docket)
    assert await done.get_result() == "done"
    with pytest.raises(ExceptionGroup):
        await failed.get_result()


async def test_a_lost_lease_cancels_the_body_and_fails_the_task(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"))):
        try:
            await record.hold(c.id)
        except asyncio.CancelledError:
            assert c.lost
            with pytest.raises(LeaseLost):
                c.check()
            raise

    async with working(any_docket):
        execution = await any_docket.add(bill)(1)
        await until(lambda: record.began, "it runs")
        await (await limiter_of(any_docket)).evict(record.began[0])
        with pytest.raises(LeaseLost):
            await execution.get_result(timeout=timedelta(seconds=10))


async def test_a_lost_lease_is_retried(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(
        timeout: Timeout = Timeout(timedelta(seconds=30)),
        retry: Retry = Retry(attempts=2),
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k")),
    ):
        if record.began:
            return "done"
        return await record.hold(c.id)

    async with working(any_docket):
        execution = await any_docket.add(bill)()
        await until(lambda: record.began, "it runs")
        await (await limiter_of(any_docket)).evict(record.began[0])
        assert await execution.get_result(timeout=timedelta(seconds=10)) == "done"


async def test_a_lease_that_is_lost_before_the_body_begins_fails_the_task(
    any_docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, began = JobGate.admit, list[str]()

    async def evicted(gate: JobGate, *arguments: Any) -> Any:
        lease: Any = await admit(gate, *arguments)
        began.append(lease.id)
        if len(began) == 1:
            await Limiter(gate.store).evict(lease.id)
            await asyncio.sleep(0.05)
        return lease

    async def bill(
        retry: Retry = Retry(attempts=2),
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k")),
    ):
        return c.lost

    monkeypatch.setattr(JobGate, "admit", evicted)
    async with working(any_docket):
        execution = await any_docket.add(bill)()
        assert await execution.get_result(timeout=timedelta(seconds=10)) is False
    assert len(began) == 2


async def test_only_warned_of_a_lost_lease_the_body_goes_on(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"), on_lost="warn"),
    ):
        await record.hold(c.id)
        return c.lost

    async with working(any_docket):
        execution = await any_docket.add(bill)()
        await until(lambda: record.began, "it runs")
        limiter = await limiter_of(any_docket)
        await limiter.evict(record.began[0])
        record.go_on.set()
        assert await execution.get_result(timeout=timedelta(seconds=10)) is True


async def test_a_redelivery_of_what_still_runs_does_not_run_twice(docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"))):
        await record.hold(n)

    soon = timedelta(milliseconds=200)
    async with (
        quick(docket, name="silent") as silent,
        quick(docket, name="b", redelivery_timeout=soon) as b,
    ):
        # It does not say that it still works: its message is given to the other.
        silent._renew_leases = _nothing  # type: ignore[method-assign]
        first = asyncio.ensure_future(silent.run_forever())
        execution = await docket.add(bill)(1)
        await until(lambda: record.began, "it runs")
        async with docket.redis() as redis:  # the other one looks, not this one, for minutes
            await redis.delete(docket.redelivery_sweep_key)
        other = asyncio.ensure_future(b.run_forever())

        async def redelivered() -> bool:
            async with docket.redis() as redis:
                pending = await redis.xpending_range(
                    docket.stream_key, docket.worker_group_name, "-", "+", 10
                )
            return bool(pending and pending[0]["times_delivered"] >= 3)

        await until_true(redelivered, "it is delivered again, and again")
        # One on its way while the first run ends would run: at least once, as Docket promises.
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert record.began == [1]
        record.go_on.set()
        await execution.get_result(timeout=timedelta(seconds=10))

        async def acknowledged() -> bool:
            async with docket.redis() as redis:
                return await redis.xlen(docket.stream_key) == 0

        await until_true(acknowledged, "the message is gone")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert record.began == [1]


async def test_a_redelivery_that_cannot_ask_leaves_the_message_to_the_first(
    docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = TaskRecord()
    admit, asked = JobGate.admit, 0

    async def once(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise StoreUnavailable("away")
        return await admit(*arguments)

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"))):
        await record.hold(n)

    monkeypatch.setattr(JobGate, "admit", once)
    async with working(docket, redelivery_timeout=timedelta(milliseconds=200)) as worker:
        monkeypatch.setattr(worker, "_renew_leases", _nothing)
        execution = await docket.add(bill)(1)
        await until(lambda: asked > 1, "it is delivered again")
        await asyncio.sleep(0.1)
        nothing_parked = await parked(docket, 0)()
        record.go_on.set()
        await execution.get_result(timeout=timedelta(seconds=10))
    assert nothing_parked
    assert record.began == [1]


async def test_a_grant_that_nobody_heard_of_is_waited_for(
    docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, answers = JobGate.admit, [Held(0.2)]

    async def held_first(*arguments: Any) -> Any:
        return answers.pop() if answers else await admit(*arguments)

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"))):
        return "done"

    monkeypatch.setattr(JobGate, "admit", held_first)
    async with working(docket):  # whose messages come again after five minutes
        execution = await docket.add(bill)(1)
        assert await execution.get_result(timeout=timedelta(seconds=10)) == "done"


async def _nothing(*_: Any) -> None:
    """Renew nothing."""


async def test_waiting_is_no_iteration_of_a_perpetual_task(any_docket: Docket) -> None:
    record = TaskRecord()

    async def forever(
        n: int,
        perpetual: Perpetual = Perpetual(),
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k")),
    ):
        await record.body(n, 0.05)

    await any_docket.add(forever, key="one")(1)
    await any_docket.add(forever, key="two")(2)
    async with quick(any_docket) as worker:
        await worker.run_at_most({"one": 3, "two": 3})
    assert sorted(record.began) == [1] * 3 + [2] * 3
