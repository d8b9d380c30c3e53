"""Waiting: cost, fairness between groups, the length of the queue, and timeouts."""

from __future__ import annotations

import time
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Limiter,
    QueueFull,
    WaitTimeout,
)

from ._callers import Crew
from ._tools import PATIENCE, OverlapRecorder, keys_in_use

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY)
WORLDS = pytest.mark.parametrize("world", ["tasks", "threads"])


def wide(cost: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(KEY, max_concurrent=4, cost=cost)


@WORLDS
async def test_a_call_takes_the_slots_it_costs(store, limiter, world):
    async with Crew(store, world) as crew:
        await crew.start("three", wide(3))
        await crew.start("one", wide(1))
        await crew.start("two", wide(2))
        assert crew.became == {"three": "runs", "one": "runs", "two": "asks"}
        assert (await limiter.inspect("key")).in_use == 4


@WORLDS
async def test_a_wide_waiter_is_not_overtaken_by_narrow_ones(store, world):
    async with Crew(store, world) as crew:
        await crew.start("running", wide(2))
        await crew.start("wide", wide(4))
        await crew.start("narrow", wide(1))
        assert crew.waiting() == ["wide", "narrow"]
        await crew.finish("running")
        await crew.becomes("wide", "runs")
        assert crew.became["narrow"] == "asks"
    assert crew.served == ["running", "wide", "narrow"]


async def test_one_release_may_serve_several_narrow_waiters(store):
    async with Crew(store) as crew:
        await crew.start("wide", wide(4))
        for name in "abc":
            await crew.start(name, wide(1))
        await crew.finish("wide")
        for name in "abc":
            await crew.becomes(name, "runs")


@WORLDS
async def test_groups_are_served_in_turn(store, world):
    fair = ConcurrencyLimit(KEY, fair_by="tenant")
    async with Crew(store, world) as crew:
        await crew.start("running", fair, {"tenant": "none"})
        for number in range(4):
            await crew.start(f"a{number}", fair, {"tenant": "a"})
        for number in range(2):
            await crew.start(f"b{number}", fair, {"tenant": "b"})
        await crew.start("c0", fair, {"tenant": "c"})
        assert crew.waiting() == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
        await crew.finish("running", "a0", "b0", "c0", "a1", "b1", "a2", "a3")
    assert crew.served == ["running", "a0", "b0", "c0", "a1", "b1", "a2", "a3"]


async def test_a_group_that_comes_late_does_not_wait_for_the_long_queue_of_another(store):
    fair = ConcurrencyLimit(KEY, fair_by="tenant")
    async with Crew(store) as crew:
        await crew.start("running", fair, {"tenant": "a"})
        for number in range(6):
            await crew.start(f"a{number}", fair, {"tenant": "a"})
        await crew.finish("running", "a0", "a1")
        await crew.start("late", fair, {"tenant": "b"})
        assert crew.waiting().index("late") <= 1


async def test_priority_goes_before_fairness(store):
    def fair(priority: int) -> ConcurrencyLimit:
        return ConcurrencyLimit(
            KEY, fair_by="tenant", priority=priority, on_conflict=ConflictResolution.PRIORITY
        )

    async with Crew(store) as crew:
        await crew.start("running", fair(0), {"tenant": "a"})
        await crew.start("low", fair(0), {"tenant": "b"})
        await crew.start("high 1", fair(1), {"tenant": "a"})
        await crew.start("high 2", fair(1), {"tenant": "a"})
        assert crew.waiting() == ["high 1", "high 2", "low"]


async def test_fairness_may_ask_an_async_strategy(store):
    async def tenant(args) -> str:
        return args["tenant"]

    fair = ConcurrencyLimit(KEY, fair_by=LIMIT_BY.fn(tenant))
    async with Crew(store) as crew:
        for name in ["running", "a0", "a1", "b0"]:
            await crew.start(name, fair, {"tenant": name[0]})
        assert crew.waiting() == ["a0", "b0", "a1"]


@WORLDS
async def test_the_queue_has_a_length(store, world):
    short = ConcurrencyLimit(KEY, max_waiting=2)
    async with Crew(store, world) as crew:
        for name in "abcd":
            await crew.start(name, short)
        assert crew.became["d"] == "QueueFull"
        await crew.finish("a")
        await crew.becomes("b", "runs")
        await crew.start("e", short)
        assert crew.waiting() == ["c", "e"]


async def test_the_queue_that_is_full_leaves_a_free_slot_alone(limiter):
    async with limiter.hold(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0)) as lease:
        assert lease.keys == ("key",)
        async with limiter.hold(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0)):
            with pytest.raises(QueueFull) as refusal:
                await limiter.acquire(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0))
    assert (refusal.value.in_use, refusal.value.max_concurrent) == (2, 2)


@WORLDS
async def test_a_timeout_leaves_the_queue(store, limiter, world):
    async with Crew(store, world) as crew:
        await crew.start("running", ONE)
        await crew.start("impatient", ONE, timeout=0.02)
        await crew.start("patient", ONE)
        await crew.becomes("impatient", "WaitTimeout")
        assert crew.waiting() == ["patient"]
        assert (await limiter.inspect("key")).in_use == 1


async def test_a_timeout_of_zero_takes_what_is_free_and_never_waits(store, limiter, threads):
    async with Limiter(store).hold(ONE, timeout=0):
        with pytest.raises(WaitTimeout) as refusal:
            await limiter.acquire(ONE, timeout=0)
        with pytest.raises(WaitTimeout):
            threads.acquire(ONE, timeout=0)
        told = (refusal.value.key, refusal.value.max_concurrent, refusal.value.in_use)
        assert told == ("key", 1, 1)
    assert await keys_in_use(limiter) == []


@pytest.mark.parametrize(
    ("own", "others", "callers"),
    [(0.01, 60, None), (60, 0.01, 60), (60, None, 0.01), (None, None, 0), (0, 60, 60)],
)
async def test_the_shortest_timeout_counts(store, threads, own, others, callers):
    limits = [
        ConcurrencyLimit(KEY, timeout=own),
        ConcurrencyLimit(LIMIT_BY.constant("other"), timeout=others),
    ]
    started_at = time.monotonic()
    async with Crew(store) as crew:
        await crew.start("running", ONE)
        await crew.start("a", limits, timeout=callers)
        await crew.start("b", limits, timeout=callers, world="threads")
        await crew.becomes("a", "WaitTimeout")
        await crew.becomes("b", "WaitTimeout")
    assert time.monotonic() - started_at < PATIENCE


async def test_a_timeout_may_be_a_timedelta(store, limiter, threads):
    async with Limiter(store).hold(ONE):
        with pytest.raises(WaitTimeout):
            await limiter.acquire(ONE, timeout=timedelta(milliseconds=1))
        with pytest.raises(WaitTimeout):
            threads.acquire(ONE, timeout=timedelta(milliseconds=1))


async def test_a_call_that_gets_its_slot_in_time_does_not_time_out_later(store):
    async with Crew(store) as crew:
        await crew.start("running", ONE)
        await crew.start("waiter", ONE, timeout=PATIENCE)
        await crew.finish("running")
        await crew.becomes("waiter", "runs")
    assert crew.became["waiter"] == "done"


async def test_costs_in_use_are_never_above_the_limit(limiter):
    recorder = OverlapRecorder()

    async def call(cost: int) -> None:
        limit = ConcurrencyLimit(KEY, max_concurrent=5, cost=cost)
        async with limiter.hold(limit):
            with recorder.inside("key", cost):
                await checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(call, 1 + number % 5)
    assert recorder.entered == 60
    assert recorder.highest == {"key": 5}
