"""Events of a call come in order, each once to each observer: with threads, and interrupted."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, StoreUnavailable, SyncLimiter, events
from limiter_core._observers import of_process
from limiter_core.events import Event
from limiter_core.lease import SyncLease
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._stores import RemoteStore
from ._tools import Thread, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"))
TIME_LIMIT = 20.0


class InCycle:
    """An object that only the collector of cycles frees; it then calls a function."""

    def __init__(self, finalize: Callable[[], object]) -> None:
        self._itself = self
        self._finalize = finalize

    def __del__(self) -> None:
        self._finalize()


def test_calls_while_another_thread_collects_garbage() -> None:
    """It is no matter of theirs: their events are sent where they happen."""
    seen = EventRecorder()
    limiter = SyncLimiter(MemoryStore(), observe=seen)
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        may_end.wait(TIME_LIMIT)

    def collect() -> None:
        InCycle(wait)
        gc.collect()

    thread = Thread(collect)
    assert begun.wait(TIME_LIMIT)
    for _ in range(5):
        with limiter.hold(ONE):
            pass
    lease = limiter.acquire(ONE)
    assert len(seen.events) == 11
    may_end.set()
    thread.result()
    lease.release()
    assert len(seen.events) == 12
    seen.check_invariants(calls=6)


def test_a_late_event_is_not_overtaken(store: MemoryStore) -> None:
    seen = EventRecorder()
    begun, may_end = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        if isinstance(event, events.Granted):
            begun.set()
            may_end.wait(TIME_LIMIT)
        seen(event)

    limiter = SyncLimiter(store, observe=slow)
    leases: list[SyncLease] = []
    # The collector may have interrupted code with a lock that an observer takes: so not there.
    InCycle(lambda: leases.append(limiter.acquire(ONE)))
    gc.collect()
    assert begun.wait(TIME_LIMIT)  # in the background
    assert not seen.events
    leases.pop().release()
    assert not seen.events
    may_end.set()
    until_now(lambda: len(seen.events) == 2, "both events were sent")
    assert seen.kinds == ["Granted", "Released"]


@pytest.fixture
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_often")
def test_observers_of_several_threads_are_all_added_and_removed() -> None:
    before = of_process.observers.registered
    for _ in range(150):
        start = threading.Barrier(4)

        def add_some(start: threading.Barrier = start) -> list[Callable[[], None]]:
            start.wait(TIME_LIMIT)
            removed = limiter_core.observe(lambda _: None)
            added = [limiter_core.observe(lambda _: None) for _ in range(5)]
            removed()
            return added

        threads = [Thread(add_some) for _ in range(4)]
        remove = [each for thread in threads for each in thread.result()]
        assert len(of_process.observers.registered) == len(before) + 20
        for each in remove:
            each()
        assert of_process.observers.registered == before


def test_an_observer_that_is_interrupted_at_a_grant(store: MemoryStore) -> None:
    """The slot comes back, so those that were sent the grant are sent its end."""
    seen = EventRecorder()

    def interrupted(event: Event) -> None:
        if isinstance(event, events.Granted):
            raise KeyboardInterrupt

    remove = [limiter_core.observe(seen), limiter_core.observe(interrupted)]
    try:
        with pytest.raises(KeyboardInterrupt):
            SyncLimiter(store).acquire(ONE)
    finally:
        for each in remove:
            each()
    until_now(lambda: store.inspect("one").in_use == 0, "the slot came back")
    seen.check_invariants(calls=1)


class Observing:
    """Its method is an observer: another object each time that it is looked up."""

    def __init__(self) -> None:
        self.seen = EventRecorder()

    def observe(self, event: Event) -> None:
        self.seen(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observing)  # as that of a dataclass without fields

    __hash__ = None  # type: ignore[assignment]


def test_an_observer_that_is_added_twice_is_called_once(store: MemoryStore) -> None:
    first, other = Observing(), Observing()
    limiter = SyncLimiter(store, observe=first.observe)
    removals = [limiter_core.observe(each.observe) for each in (first, first, other)]
    lease = limiter.acquire(ONE)
    removals[0]()
    removals[1]()
    lease.release()
    removals[2]()
    first.seen.check_invariants(calls=1)
    other.seen.check_invariants(calls=1)


def test_a_method_of_a_list_is_added_twice_and_called_once(store: MemoryStore) -> None:
    first: list[Event] = []
    other: list[Event] = []
    limiter = SyncLimiter(store, observe=first.append)
    removals = [limiter_core.observe(each.append) for each in (first, other)]
    limiter.acquire(ONE).release()
    for remove in removals:
        remove()
    assert [type(event).__name__ for event in first] == ["Granted", "Released"]
    assert len(other) == 2


def test_one_observer_of_two_limiters_learns_once_of_an_outage() -> None:
    seen = EventRecorder()
    remote: Any = RemoteStore()
    limiters = [SyncLimiter(remote, observe=seen) for _ in range(2)]
    remote.down = True
    for limiter in limiters:
        with pytest.raises(StoreUnavailable):
            limiter.acquire(ONE, timeout=0.1)
    remote.down = False
    for limiter in limiters:
        limiter.acquire(ONE).release()
    assert seen.kinds.count("StoreFailed") == 1
    assert seen.kinds.count("StoreRecovered") == 1
