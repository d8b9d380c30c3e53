"""Metrics: what is counted and measured, under which names, units and attributes."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress

import anyio
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    LimitReached,
    Preempted,
    StoreUnavailable,
    Superseded,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore
from limiter_otel._sample import PER_SECOND
from tests.core._stores import RemoteStore
from tests.core._tools import Thread, fork, until, until_waiting, until_waiting_now

from ._telemetry import Telemetry

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, name="billing")
BOTH = (ONE, ConcurrencyLimit("region", 5))

UNITS = {
    "limiter.wait.duration": "s",
    "limiter.hold.duration": "s",
    "limiter.calls": "{call}",
    "limiter.leases.lost": "{lease}",
    "limiter.store.errors": "{error}",
    "limiter.held": "{lease}",
    "limiter.waiting": "{call}",
}
COUNTED = re.compile(r"\{[a-z_]+\}|s")  # UCUM: seconds, or an annotation of what is counted
NAME = re.compile(r"[a-z]+(\.[a-z]+(_[a-z]+)*)+")


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def wait_once(limiter: Limiter, store: MemoryStore, clock: FakeClock) -> None:
    """Hold a slot for 2 seconds, while another call waits for it."""
    async with anyio.create_task_group() as tasks, limiter.hold(ONE):

        async def wait() -> None:
            async with limiter.hold(ONE):
                clock.advance(1)

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        clock.advance(2)


async def test_a_call_that_waits(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    await wait_once(Limiter(store), store, clock)
    (wait,) = telemetry.points("limiter.wait.duration")
    assert (wait.count, wait.sum) == (1, 2)
    assert wait.attributes == {"limiter.name": "billing", "limiter.outcome": "granted"}
    (hold,) = telemetry.points("limiter.hold.duration")
    assert (hold.count, hold.sum) == (2, 3)
    assert hold.attributes == {"limiter.name": "billing", "limiter.outcome": "released"}
    assert telemetry.values("limiter.calls") == {("billing", "granted"): 2}
    assert telemetry.values("limiter.held") == {("billing",): 0}
    assert telemetry.values("limiter.waiting") == {("billing",): 0}


async def test_names_units_and_attributes_follow_the_conventions(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    limiter = Limiter(store)
    await wait_once(limiter, store, clock)
    lease = await limiter.acquire(ONE)
    await limiter.evict(lease.id)
    await until(lambda: bool(telemetry.points("limiter.leases.lost")), "the loss is counted")
    remote = RemoteStore()
    remote.down = True
    async with Limiter(remote, on_store_error="admit").hold(ONE):
        pass
    metrics = telemetry.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == UNITS
    for name, metric in metrics.items():
        assert NAME.fullmatch(name)
        assert COUNTED.fullmatch(metric.unit or "")
        assert (metric.description or "").endswith(".")
        for point in metric.data.data_points:
            assert all(NAME.fullmatch(attribute) for attribute in point.attributes or {})


async def test_bounds_reach_from_a_millisecond_to_ten_minutes(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    await wait_once(Limiter(store), store, clock)
    for name in ("limiter.wait.duration", "limiter.hold.duration"):
        (point,) = telemetry.points(name)
        bounds = point.explicit_bounds
        assert (bounds[0], bounds[-1]) == (0.001, 600)
        assert list(bounds) == sorted(set(bounds))


async def test_what_is_held_and_waits_now(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = Limiter(store)
    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        for _ in range(2):
            tasks.start_soon(limiter.acquire, ONE)
        await until_waiting(store, "one", 2)
        assert telemetry.values("limiter.held") == {("billing",): 1}
        assert telemetry.values("limiter.waiting") == {("billing",): 2}
        tasks.cancel_scope.cancel()
    assert telemetry.values("limiter.held") == {("billing",): 0}
    assert telemetry.values("limiter.waiting") == {("billing",): 0}
    calls = telemetry.values("limiter.calls")
    assert calls == {("billing", "granted"): 1, ("billing", "cancelled"): 2}


async def test_outcomes_of_refused_calls(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = Limiter(store)
    latest = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, on_conflict="keep_latest", name="latest")
    lease = await limiter.acquire(ONE)
    assert await limiter.try_acquire(ONE) is None
    with pytest.raises(WaitTimeout):
        await limiter.acquire(ONE, timeout=0)
    with pytest.raises(LimitReached):
        await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), max_waiting=0))
    async with anyio.create_task_group() as tasks:

        async def is_superseded() -> None:
            with pytest.raises(Superseded):
                await limiter.acquire(latest)

        tasks.start_soon(is_superseded)
        await until_waiting(store, "one", 1)
        with pytest.raises(WaitTimeout):
            await limiter.acquire(latest, timeout=0)
    await lease.release()
    assert telemetry.values("limiter.calls") == {
        ("billing", "granted"): 1,
        ("billing", "full"): 1,
        ("billing", "timeout"): 1,
        ("one", "queue_full"): 1,
        ("latest", "superseded"): 1,
        ("latest", "timeout"): 1,
    }


async def test_a_call_that_is_preempted(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = Limiter(store)
    newest = ConcurrencyLimit(
        LIMIT_BY.constant("one"), 1, on_conflict="cancel_running", name="newest"
    )
    async with anyio.create_task_group() as tasks:
        entered = anyio.Event()

        async def first() -> None:
            async with limiter.hold(newest):
                entered.set()
                await anyio.sleep_forever()

        async def is_preempted() -> None:
            with pytest.raises(Preempted):
                await first()

        tasks.start_soon(is_preempted)
        await entered.wait()
        async with limiter.hold(newest):
            pass
    assert telemetry.values("limiter.calls") == {("newest", "granted"): 2}
    assert telemetry.values("limiter.held") == {("newest",): 0}


async def test_leases_that_are_lost(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    limiter = Limiter(store)
    lease = await limiter.acquire(ONE)
    clock.advance(5)
    await limiter.evict(lease.id)
    await until(lambda: bool(telemetry.points("limiter.leases.lost")), "the loss is counted")
    await lease.release()
    assert telemetry.values("limiter.leases.lost") == {("billing", "evicted"): 1}
    assert telemetry.values("limiter.held") == {("billing",): 0}
    assert telemetry.values("limiter.hold.duration") == {("billing", "evicted"): 1}


async def test_a_call_under_two_limits_counts_for_both(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    limiter = Limiter(store)
    async with anyio.create_task_group() as tasks, limiter.hold(BOTH, {"region": "eu"}):
        assert telemetry.values("limiter.held") == {("billing",): 1, ("region",): 1}

        async def wait() -> None:
            async with limiter.hold(BOTH, {"region": "eu"}):
                pass

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        assert telemetry.values("limiter.waiting") == {("billing",): 1, ("region",): 0}
        clock.advance(1)
    assert telemetry.values("limiter.calls") == {
        ("billing", "granted"): 2,
        ("region", "granted"): 2,
    }
    assert telemetry.values("limiter.wait.duration") == {("billing", "granted"): 1}


def test_threads(telemetry: Telemetry, store: MemoryStore, clock: FakeClock) -> None:
    limiter = SyncLimiter(store)
    with limiter.hold(ONE):
        waiter = Thread(lambda: limiter.acquire(ONE).release())
        until_waiting_now(store, "one", 1)
        assert telemetry.values("limiter.waiting") == {("billing",): 1}
        clock.advance(3)
    waiter.result()
    (wait,) = telemetry.points("limiter.wait.duration")
    assert (wait.count, wait.sum) == (1, 3)


def test_many_threads_lose_no_count(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = SyncLimiter(store)
    wide = ConcurrencyLimit("id", 1)

    def work(first: int) -> None:
        for number in range(200):
            with limiter.hold(wide, {"id": f"{first}-{number}"}):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert telemetry.values("limiter.calls") == {("id", "granted"): 1600}
    assert telemetry.values("limiter.held") == {("id",): 0}


async def test_a_store_that_fails(telemetry: Telemetry) -> None:
    remote = RemoteStore()
    limiter = Limiter(remote)
    for remote.down in (True, True, False):
        with suppress(StoreUnavailable):
            await (await limiter.acquire(ONE, timeout=0.1)).release()
    error = "limiter_core.errors.StoreUnavailable"
    assert telemetry.values("limiter.store.errors") == {(error,): 1}, "an outage is counted once"
    calls = telemetry.values("limiter.calls")
    assert calls == {("billing", "failed"): 2, ("billing", "granted"): 1}


async def test_calls_without_a_store(telemetry: Telemetry) -> None:
    remote = RemoteStore()
    remote.down = True
    async with Limiter(remote, on_store_error="admit").hold(ONE):
        assert telemetry.values("limiter.held") == {("billing",): 0}
    assert telemetry.values("limiter.calls") == {("billing", "admitted"): 1}


async def test_all_are_counted_also_where_a_sample_is_measured(
    telemetry: Telemetry, store: MemoryStore
) -> None:
    limiter = Limiter(store)
    for _ in range(20 * PER_SECOND):
        async with limiter.hold(ONE):
            pass
    assert telemetry.values("limiter.calls") == {("billing", "granted"): 20 * PER_SECOND}
    (hold,) = telemetry.points("limiter.hold.duration")
    assert 0 < hold.count < 20 * PER_SECOND


async def test_ten_thousand_keys_make_few_series(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = Limiter(store)
    limit = ConcurrencyLimit("customer", 1)
    for number in range(10_000):
        async with limiter.hold(limit, {"customer": number}):
            assert await limiter.try_acquire(limit, {"customer": number}) is None
    series = sum(len(metric.data.data_points) for metric in telemetry.metrics().values())
    assert 0 < series <= 200
    assert telemetry.values("limiter.calls") == {
        ("customer", "granted"): 10_000,
        ("customer", "full"): 10_000,
    }


def test_ten_thousand_names_make_few_series(telemetry: Telemetry) -> None:
    """In a process of their own: the names that a process counts separately are few."""
    child = fork()
    if child == 0:
        limiter = SyncLimiter("memory://")
        for number in range(10_000):
            limit = ConcurrencyLimit(LIMIT_BY.constant("x"), 1, name=f"name {number}")
            with limiter.hold(limit):
                pass
        series = [len(telemetry.points(name)) for name in telemetry.metrics()]
        counted = telemetry.values("limiter.calls")
        few = series and max(series) <= 101 and counted["other", "granted"] > 9_800
        os._exit(0 if few else 1)
    assert os.waitpid(child, 0)[1] == 0
