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

from ._named_calls import NamedCalls
from ._tools import PATIENCE, OverlapRecorder, keys_in_use

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY)
WORLDS = pytest.mark.parametrize("world", ["tasks", "threads"])


def wide(cost: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(KEY, max_concurrent=4, cost=cost)


@WORLDS
async def test_a_call_takes_the_slots_it_costs(store, limiter, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("three", wide(3))
        await calls.start("one", wide(1))
        await calls.start("two", wide(2))
        assert calls.became == {"three": "runs", "one": "runs", "two": "asks"}
        assert (await limiter.inspect("key")).in_use == 4


@WORLDS
async def test_a_wide_waiter_is_not_overtaken_by_narrow_ones(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", wide(2))
        await calls.start("wide", wide(4))
        await calls.start("narrow", wide(1))
        assert calls.waiting() == ["wide", "narrow"]
        await calls.finish("running")
        await calls.becomes("wide", "runs")
        assert calls.became["narrow"] == "asks"
    assert calls.served == ["running", "wide", "narrow"]


async def test_one_release_may_serve_several_narrow_waiters(store):
    async with NamedCalls(store) as calls:
        await calls.start("wide", wide(4))
        for name in "abc":
            await calls.start(name, wide(1))
        await calls.finish("wide")
        for name in "abc":
            await calls.becomes(name, "runs")


@WORLDS
async def test_groups_are_served_in_turn(store, world):
    fair = ConcurrencyLimit(KEY, fair_by="tenant")
    async with NamedCalls(store, world) as calls:
        await calls.start("running", fair, {"tenant": "none"})
        for number in range(4):
            await calls.start(f"a{number}", fair, {"tenant": "a"})
        for number in range(2):
            await calls.start(f"b{number}", fair, {"tenant": "b"})
        await calls.start("c0", fair, {"tenant": "c"})
        assert calls.waiting() == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
        await calls.finish("running", "a0", "b0", "c0", "a1", "b1", "a2", "a3")
    assert calls.served == ["running", "a0", "b0", "c0", "a1", "b1", "a2", "a3"]


async def test_a_group_that_comes_late_does_not_wait_for_the_long_queue_of_another(store):
    fair = ConcurrencyLimit(KEY, fair_by="tenant")
    async with NamedCalls(store) as calls:
        await calls.start("running", fair, {"tenant": "a"})
        for number in range(6):
            await calls.start(f"a{number}", fair, {"tenant": "a"})
        await calls.finish("running", "a0", "a1")
        await calls.start("late", fair, {"tenant": "b"})
        assert calls.waiting().index("late") <= 1


async def test_priority_goes_before_fairness(store):
    def fair(priority: int) -> ConcurrencyLimit:
        return ConcurrencyLimit(
            KEY, fair_by="tenant", priority=priority, on_conflict=ConflictResolution.PRIORITY
        )

    async with NamedCalls(store) as calls:
        await calls.start("running", fair(0), {"tenant": "a"})
        await calls.start("low", fair(0), {"tenant": "b"})
        await calls.start("high 1", fair(1), {"tenant": "a"})
        await calls.start("high 2", fair(1), {"tenant": "a"})
        assert calls.waiting() == ["high 1", "high 2", "low"]


async def test_fairness_may_ask_an_async_strategy(store):
    async def tenant(args) -> str:
        return args["tenant"]

    fair = ConcurrencyLimit(KEY, fair_by=LIMIT_BY.fn(tenant))
    async with NamedCalls(store) as calls:
        for name in ["running", "a0", "a1", "b0"]:
            await calls.start(name, fair, {"tenant": name[0]})
        assert calls.waiting() == ["a0", "b0", "a1"]


@WORLDS
async def test_the_queue_has_a_length(store, world):
    short = ConcurrencyLimit(KEY, max_waiting=2)
    async with NamedCalls(store, world) as calls:
        for name in "abcd":
            await calls.start(name, short)
        assert calls.became["d"] == "QueueFull"
        await calls.finish("a")
        await calls.becomes("b", "runs")
        await calls.start("e", short)
        assert calls.waiting() == ["c", "e"]


async def test_the_queue_that_is_full_leaves_a_free_slot_alone(limiter):
    async with limiter.hold(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0)) as lease:
        assert lease.keys == ("key",)
        async with limiter.hold(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0)):
            with pytest.raises(QueueFull) as refusal:
                await limiter.acquire(ConcurrencyLimit(KEY, max_concurrent=2, max_waiting=0))
    assert (refusal.value.in_use, refusal.value.max_concurrent) == (2, 2)


@WORLDS
async def test_a_timeout_leaves_the_queue(store, limiter, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", ONE)
        await calls.start("impatient", ONE, timeout=0.02)
        await calls.start("patient", ONE)
        await calls.becomes("impatient", "WaitTimeout")
        assert calls.waiting() == ["patient"]
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
    async with NamedCalls(store) as calls:
        await calls.start("running", ONE)
        await calls.start("a", limits, timeout=callers)
        await calls.start("b", limits, timeout=callers, world="threads")
        await calls.becomes("a", "WaitTimeout")
        await calls.becomes("b", "WaitTimeout")
    assert time.monotonic() - started_at < PATIENCE


async def test_a_timeout_may_be_a_timedelta(store, limiter, threads):
    async with Limiter(store).hold(ONE):
        with pytest.raises(WaitTimeout):
            await limiter.acquire(ONE, timeout=timedelta(milliseconds=1))
        with pytest.raises(WaitTimeout):
            threads.acquire(ONE, timeout=timedelta(milliseconds=1))


async def test_a_call_that_gets_its_slot_in_time_does_not_time_out_later(store):
    async with NamedCalls(store) as calls:
        await calls.start("running", ONE)
        await calls.start("waiter", ONE, timeout=PATIENCE)
        await calls.finish("running")
        await calls.becomes("waiter", "runs")
    assert calls.became["waiter"] == "done"


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
