"""Observers that count: what happens to most calls is counted, without an event."""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, LimiterError, SyncLimiter
from limiter_core.events import CountingObserver
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._tools import until_now, until_waiting

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, name="billing")
BOTH = (ONE, ConcurrencyLimit("region"))


class CountingRecorder(EventRecorder, CountingObserver):
    """Counts grants and releases by name, and keeps all other events."""

    def __init__(self) -> None:
        super().__init__()
        self.grants: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.held: list[float] = []

    def granted(self, names: tuple[str, ...], adapter: str | None) -> None:
        assert adapter is None
        self.grants.update(names)

    def released(self, names: tuple[str, ...], adapter: str | None, held: float) -> None:
        assert adapter is None
        self.releases.update(names)
        self.held.append(held)


@pytest.fixture
def counted() -> Iterator[CountingRecorder]:
    observer = CountingRecorder()
    remove = limiter_core.observe(observer)
    yield observer
    remove()


async def test_a_call_that_does_not_wait_is_counted_without_an_event(
    limiter: Limiter, counted: CountingRecorder
) -> None:
    async with limiter.hold(BOTH, {"region": "eu"}):
        assert counted.grants == {"billing": 1, "region": 1}
        assert not counted.releases
    assert counted.releases == counted.grants
    assert counted.held[0] > 0
    assert counted.events == []


def test_so_are_those_of_threads(threads: SyncLimiter, counted: CountingRecorder) -> None:
    with threads.hold(ONE):
        pass
    assert counted.releases == counted.grants == {"billing": 1}
    assert counted.events == []


async def test_a_call_that_waits_is_an_event(
    limiter: Limiter, counted: CountingRecorder, store: MemoryStore
) -> None:
    async def wait() -> None:
        async with limiter.hold(ONE):
            pass

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
    assert counted.kinds == ["Queued", "Granted"]
    assert counted.grants == {"billing": 1}
    assert counted.releases == {"billing": 2}


async def test_other_observers_get_all_events(limiter: Limiter, counted: CountingRecorder) -> None:
    seen = EventRecorder()
    remove = limiter_core.observe(seen)
    async with limiter.hold(ONE):
        pass
    remove()
    assert seen.kinds == ["Granted", "Released"]
    assert counted.events == []
    async with limiter.hold(ONE):
        pass
    assert counted.releases == {"billing": 2}


async def test_what_it_raises_is_logged_once(
    limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(CountingRecorder):
        def granted(self, names: tuple[str, ...], adapter: str | None) -> None:
            raise ZeroDivisionError

    caplog.set_level(logging.ERROR, "limiter")
    remove = limiter_core.observe(observer := Failing())
    for _ in range(3):
        async with limiter.hold(ONE):
            pass
    remove()
    assert observer.releases == {"billing": 3}
    assert caplog.text.count("raised at") == 1


class CountingWaits(CountingRecorder):
    """Counts waits as well: it wants no events of them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Counter[tuple[str, str | None]] = Counter()

    def begin_wait(self, name: str, adapter: str | None) -> Callable[[], object]:
        self.waiting[name, adapter] += 1

        def end() -> None:
            self.waiting[name, adapter] -= 1

        return end


@pytest.fixture
def waits() -> Iterator[CountingWaits]:
    observer = CountingWaits()
    remove = limiter_core.observe(observer)
    yield observer
    remove()


async def test_a_wait_that_is_counted_has_no_events(
    limiter: Limiter, waits: CountingWaits, store: MemoryStore
) -> None:
    seen = EventRecorder()
    remove = limiter_core.observe(seen)

    async def wait() -> None:
        async with limiter.hold(BOTH, {"region": "eu"}):
            assert waits.waiting.total() == 0, "its wait ends before it is granted"

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        assert waits.waiting == {("billing", None): 1}
    remove()
    assert waits.grants == waits.releases == {"billing": 2, "region": 1}
    assert waits.events == []
    assert seen.kinds.count("Queued") == 1, "other observers get all events"
    seen.check_invariants(2)


@pytest.mark.parametrize("ending", ["timeout", "cancelled"])
async def test_a_wait_that_is_counted_ends_with_any_outcome(
    limiter: Limiter, waits: CountingWaits, store: MemoryStore, ending: str
) -> None:
    lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with suppress(LimiterError):
                await limiter.acquire(ONE, timeout=0.05 if ending == "timeout" else None)

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        assert waits.waiting == {("billing", None): 1}
        if ending == "cancelled":
            tasks.cancel_scope.cancel()
    await lease.release()
    assert waits.waiting == {("billing", None): 0}
    kind = {"timeout": "Refused", "cancelled": "Cancelled"}[ending]
    assert waits.kinds == [kind], "an outcome that is no grant is an event"
    assert waits.grants == waits.releases == {"billing": 1}


async def test_nothing_is_counted_after_it_was_removed(
    limiter: Limiter, store: MemoryStore
) -> None:
    observer = CountingWaits()
    remove = limiter_core.observe(observer)

    async def wait() -> None:
        async with limiter.hold(ONE):
            pass

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        remove()
    assert observer.waiting == {("billing", None): 1}
    assert observer.grants == {"billing": 1}
    assert not observer.releases
    assert observer.events == []


async def test_a_counter_of_waits_that_raises_gets_the_events(
    limiter: Limiter, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(CountingRecorder):
        def begin_wait(self, name: str, adapter: str | None) -> None:
            raise ZeroDivisionError

    remove = limiter_core.observe(observer := Failing())

    async def wait() -> None:
        async with limiter.hold(ONE):
            pass

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        for _ in range(2):
            tasks.start_soon(wait)
        await until_waiting(store, "one", 2)
    remove()
    assert sorted(observer.kinds) == ["Granted", "Granted", "Queued", "Queued"]
    assert caplog.text.count("raised at a wait") == 1


def test_the_collector_calls_no_observer_amid_the_code_that_it_interrupted(
    threads: SyncLimiter, counted: CountingRecorder
) -> None:
    """That may have the lock which an observer takes; OpenTelemetry's are not reentrant."""
    lock = threading.Lock()

    class Locking(CountingRecorder):
        def released(self, names: tuple[str, ...], adapter: str | None, held: float) -> None:
            with lock:
                super().released(names, adapter, held)

    def stream() -> Iterator[None]:
        with threads.hold(ONE):
            yield

    observer = Locking()
    cycle: dict[str, Any] = {"stream": stream()}
    remove = limiter_core.observe(observer)
    next(cycle["stream"])

    def collect() -> None:
        with lock:
            cycle["itself"] = cycle.copy()
            cycle["itself"]["itself"] = cycle["itself"]
            cycle.clear()
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for its own lock"
    until_now(lambda: observer.releases == counted.releases == {"billing": 1}, "both have counted")
    remove()
