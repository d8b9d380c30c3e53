"""Events of calls: what observers are sent, and what an observer cannot break."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    LeaseLost,
    Limiter,
    LimitReached,
    StoreUnavailable,
    SyncLimiter,
    WaitTimeout,
    events,
)
from limiter_core.requests import Loss
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._stores import RemoteStore
from ._tools import Thread, fork, until, until_now, until_waiting, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)
NEWEST = ConcurrencyLimit(LIMIT_BY.constant("one"), on_conflict="cancel_running")
LATEST = ConcurrencyLimit(LIMIT_BY.constant("one"), on_conflict="keep_latest")


@pytest.fixture
def seen() -> EventRecorder:
    return EventRecorder()


@pytest.fixture
def observed(store: MemoryStore, seen: EventRecorder) -> Limiter:
    return Limiter(store, observe=seen, label="web-1")


@pytest.fixture
def of_process(seen: EventRecorder) -> Iterator[EventRecorder]:
    remove = limiter_core.observe(seen)
    yield seen
    remove()


async def test_a_call_that_is_granted_at_once(observed: Limiter, seen: EventRecorder) -> None:
    async with observed.hold(ONE) as lease:
        assert lease.waited_for == 0
        granted = seen.one(events.Granted)
        assert granted.id == lease.id
    assert seen.kinds == ["Granted", "Released"]
    assert (granted.keys, granted.cost, granted.costs) == (("one",), 1, (1,))
    assert (granted.waited, granted.function, granted.adapter) == (0, None, None)
    assert granted.label == "web-1"
    assert seen.one(events.Released).held > 0
    seen.check_invariants(1)


async def test_a_framework_is_named(observed: Limiter, seen: EventRecorder) -> None:
    class RequestView(ArgumentView):
        __slots__ = ()
        adapter = "web"

    async with observed.hold(ONE, RequestView({})):
        pass
    async with observed.hold(ONE):
        pass
    assert [event.adapter for event in seen.events] == ["web", "web", None, None]


async def test_a_function_is_named(observed: Limiter, seen: EventRecorder) -> None:
    @observed.limited(ConcurrencyLimit("customer", cost=2, max_concurrent=3))
    async def bill(customer: int) -> None: ...

    await bill(42)
    granted = seen.one(events.Granted)
    assert granted.function is not None
    assert granted.function.endswith("bill")
    assert (granted.keys, granted.cost) == (("customer=42",), 2)


async def test_a_call_that_waits(
    observed: Limiter, seen: EventRecorder, store: MemoryStore
) -> None:
    async with anyio.create_task_group() as tasks:
        first = await observed.acquire(ONE)
        waited_for: list[float] = []

        async def wait() -> None:
            async with observed.hold(ONE) as lease:
                waited_for.append(lease.waited_for)

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        queued = seen.one(events.Queued)
        assert (queued.key, queued.max_concurrent, queued.in_use) == ("one", 1, 1)
        await first.release()
    assert seen.all(events.Granted)[1].waited == waited_for[0] > 0
    assert seen.kinds == ["Granted", "Queued", "Released", "Granted", "Released"]
    seen.check_invariants(2)


async def test_why_a_call_was_refused(
    observed: Limiter, seen: EventRecorder, store: MemoryStore
) -> None:
    other = Limiter(store)
    lease = await other.acquire(ONE)
    assert await observed.try_acquire(ONE) is None
    with pytest.raises(WaitTimeout):
        await observed.acquire(ONE, timeout=0)
    with pytest.raises(LimitReached):
        await observed.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), max_waiting=0))
    async with anyio.create_task_group() as tasks:

        async def is_superseded() -> None:
            with pytest.raises(limiter_core.Superseded):
                await observed.acquire(LATEST)

        async def is_evicted() -> None:
            with pytest.raises(limiter_core.Evicted, match="operator ended the waiting"):
                await observed.acquire(ONE)

        tasks.start_soon(is_superseded)
        await until_waiting(store, "one", 1)
        with pytest.raises(WaitTimeout):
            await other.acquire(LATEST, timeout=0)
        tasks.start_soon(is_evicted)
        await until_waiting(store, "one", 1)
        assert await other.evict_waiter(store.inspect("one").waiters[0].id)
    await lease.release()
    reasons = [event.reason for event in seen.all(events.Refused)]
    assert reasons == ["full", "timeout", "queue_full", "superseded", "evicted"]
    seen.check_invariants(5)


async def test_a_caller_that_leaves(
    observed: Limiter, seen: EventRecorder, store: MemoryStore
) -> None:
    lease = await observed.acquire(ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(observed.acquire, ONE)
        await until_waiting(store, "one", 1)
        tasks.cancel_scope.cancel()
    await lease.release()
    assert seen.one(events.Cancelled).waited > 0
    seen.check_invariants(2)


async def test_a_call_that_fails(observed: Limiter, seen: EventRecorder) -> None:
    with pytest.raises(KeyDerivationError):
        await observed.acquire(ConcurrencyLimit("customer"), {"region": 1})
    with pytest.raises(ZeroDivisionError):
        await observed.acquire(ConcurrencyLimit(LIMIT_BY.fn(lambda _: 1 / 0)))
    await observed.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await observed.acquire(ONE)
    errors = [type(event.error).__name__ for event in seen.all(events.Failed)]
    assert errors == ["KeyDerivationError", "ZeroDivisionError", "ConfigurationError"]
    seen.check_invariants(3)


async def test_a_call_that_is_preempted(
    observed: Limiter, seen: EventRecorder, store: MemoryStore
) -> None:
    lease = await observed.acquire(NEWEST)
    other = Limiter(store)
    async with anyio.create_task_group() as tasks:

        async def take() -> None:
            await (await other.acquire(NEWEST)).release()

        tasks.start_soon(take)
        await until(lambda: bool(seen.all(events.Preempted)), "the preemption")
        await lease.release()
    assert seen.kinds == ["Granted", "Preempted", "Released"]
    seen.check_invariants(1)


async def test_a_slot_that_is_lost(
    observed: Limiter, seen: EventRecorder, store: MemoryStore
) -> None:
    with pytest.raises(LeaseLost):  # noqa: PT012  (it is raised at the end of the block)
        async with observed.hold(ONE) as lease:
            assert store.evict(lease.id)
            await anyio.sleep_forever()
    await until(lambda: bool(seen.all(events.Lost)), "the loss")
    assert seen.one(events.Lost).reason is Loss.EVICTED
    assert seen.kinds == ["Granted", "Lost"]
    seen.check_invariants(1)


def test_a_slot_that_a_thread_loses(store: MemoryStore, seen: EventRecorder) -> None:
    limiter = SyncLimiter(store, observe=seen)
    lease = limiter.acquire(ONE)
    store.evict(lease.id)
    until_now(lambda: bool(seen.all(events.Lost)), "the loss")
    lease.release()
    assert seen.kinds == ["Granted", "Lost"]


def test_a_slot_that_runs_over(seen: EventRecorder) -> None:
    clock = FakeClock()
    limiter = SyncLimiter(MemoryStore(clock=clock), observe=seen)
    lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), max_hold=5))
    clock.advance(6)
    assert lease.lost
    until_now(lambda: bool(seen.all(events.Lost)), "the loss")
    lease.release()
    assert seen.one(events.Lost).held == pytest.approx(6)
    assert seen.one(events.Lost).reason is Loss.OVERRAN
    seen.check_invariants(1)


def test_calls_of_threads(store: MemoryStore, seen: EventRecorder) -> None:
    limiter = SyncLimiter(store, observe=seen)
    lease = limiter.acquire(ONE)
    assert limiter.try_acquire(ONE) is None
    thread = Thread(lambda: limiter.acquire(ONE))
    until_waiting_now(store, "one", 1)
    lease.release()
    waited = thread.result()
    assert waited.waited_for > 0
    waited.release()
    assert seen.kinds.count("Queued") == 1
    seen.check_invariants(3)


async def test_the_store_fails_and_recovers(seen: EventRecorder) -> None:
    remote = RemoteStore()
    limiter = Limiter(remote, observe=seen)
    remote.down = True
    with pytest.raises(StoreUnavailable):
        await limiter.acquire(ONE, timeout=0.2)
    remote.down = False
    await (await limiter.acquire(ONE)).release()
    failed, recovered = seen.one(events.StoreFailed), seen.one(events.StoreRecovered)
    assert failed.store == recovered.store == repr(remote)
    assert isinstance(failed.error, StoreUnavailable)
    assert recovered.outage > 0
    assert isinstance(seen.one(events.Failed).error, StoreUnavailable)
    seen.check_invariants(2)


async def test_calls_without_a_slot_while_the_store_is_away(seen: EventRecorder) -> None:
    remote = RemoteStore()
    limiter = Limiter(remote, on_store_error="admit", observe=seen)
    remote.down = True
    async with limiter.hold(ONE):
        pass
    assert seen.kinds == ["StoreFailed", "AdmittedWithoutStore"]
    seen.check_invariants(1)


# -- observers ------------------------------------------------------------------------------------


async def test_observers_of_the_process_see_all_limiters(
    limiter: Limiter, threads: SyncLimiter, of_process: EventRecorder
) -> None:
    async with limiter.hold(ONE):
        pass
    with threads.hold(ONE):
        pass
    assert of_process.kinds == ["Granted", "Released"] * 2


def test_a_removed_observer_sees_nothing(threads: SyncLimiter, seen: EventRecorder) -> None:
    remove = limiter_core.observe(seen)
    with threads.hold(ONE):
        remove()
        remove()
    with threads.hold(ONE):
        pass
    assert seen.kinds == ["Granted"]


@pytest.mark.parametrize("given", [None, 42, "print"])
def test_an_observer_is_a_function(given: object) -> None:
    with pytest.raises(ConfigurationError, match="an observer is a function"):
        limiter_core.observe(given)  # type: ignore[arg-type]


class AwaitedObserver:
    async def observe(self, event: events.Event) -> None: ...

    __call__ = observe


@pytest.mark.parametrize("given", [AwaitedObserver().observe, AwaitedObserver()])
def test_an_observer_is_no_coroutine_function(store: MemoryStore, given: Any) -> None:
    """It would never be awaited, and nothing would be observed."""
    with pytest.raises(ConfigurationError, match="an observer is no coroutine function"):
        limiter_core.observe(given)
    with pytest.raises(ConfigurationError, match="an observer is no coroutine function"):
        Limiter(store, observe=given)


async def test_an_observer_that_raises_is_logged_once(
    store: MemoryStore, seen: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: events.Event) -> None:
        raise ZeroDivisionError(event.id)

    limiter = Limiter(store, observe=fails)
    remove = limiter_core.observe(seen)
    for _ in range(3):
        async with limiter.hold(ONE):
            pass
    remove()
    logged = [record for record in caplog.records if "the observer" in record.message]
    assert len(logged) == 1
    seen.check_invariants(3)


async def test_calls_of_an_observer_send_nothing(store: MemoryStore, seen: EventRecorder) -> None:
    own = SyncLimiter(store)

    def calls(event: events.Event) -> None:
        seen(event)
        with own.hold(ConcurrencyLimit(LIMIT_BY.constant("other"))):
            pass

    remove = limiter_core.observe(calls)
    async with Limiter(store).hold(ONE):
        pass
    remove()
    assert seen.kinds == ["Granted", "Released"]


def test_an_observer_may_release_a_call(store: MemoryStore) -> None:
    """What that sends is sent when the observer has returned: it may have a lock."""
    lock, seen = threading.Lock(), EventRecorder()
    lease: list[limiter_core.SyncLease] = []

    def releases(event: events.Event) -> None:
        with lock:
            seen(event)
            if lease:
                lease.pop().release()

    limiter = SyncLimiter(store, observe=releases)
    lease.append(limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("other"))))
    with limiter.hold(ONE):
        pass
    until_now(lambda: len(seen.events) == 4, "four events")
    seen.check_invariants(2)


def test_a_copy_has_the_same_observer(store: MemoryStore, seen: EventRecorder) -> None:
    with copy.copy(SyncLimiter(store, observe=seen)).hold(ONE):
        pass
    seen.check_invariants(1)


def test_a_forked_process_sends_nothing_of_its_parents_calls(store: MemoryStore) -> None:
    read, write = os.pipe()

    def observer(event: events.Event) -> None:
        os.write(write, type(event).__name__[:1].encode())

    limiter = SyncLimiter(store, observe=observer)
    lease = limiter.acquire(ONE)
    child = fork()
    if child == 0:
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    lease.release()
    os.close(write)
    assert os.read(read, 10) == b"GR"
    os.close(read)
