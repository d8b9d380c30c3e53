"""An exception thrown in at any line, while calls are observed.

An event may be missing then, if the line is that which sends it. None is sent twice, and the slots
come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, LimiterError, SyncLimiter
from limiter_core._observers import is_in_observer
from limiter_core.requests import Demand
from limiter_memory import MemoryStore

from ._events import ENDS, OUTCOMES, EventRecorder
from ._interrupts import ONE, TWO, Other, finish
from ._throw import Thrower, Thrown, sweep


def swept(trial: Callable[[Thrower, MemoryStore, EventRecorder], None]) -> None:
    def with_a_store(thrower: Thrower) -> None:
        seen = EventRecorder()
        trial(thrower, MemoryStore(), seen)
        assert not is_in_observer()
        for kinds in (OUTCOMES, ENDS):
            counted = Counter(event.id for event in seen.events if isinstance(event, kinds))
            counted.pop("", None)  # its keys were not known yet
            assert set(counted.values()) <= {1}, seen.events
        for event in seen.events:
            assert len(event.names) == len(event.keys) or not event.keys, event

    assert sweep(with_a_store) > 10


def test_a_hold() -> None:
    def trial(thrower: Thrower, store: MemoryStore, seen: EventRecorder) -> None:
        limiter = SyncLimiter(store, observe=seen)

        def work() -> None:
            with limiter.hold([ONE, TWO]):
                assert store.inspect("one").in_use == 1

        with thrower.tracing(), suppress(Thrown):  # what is thrown into an observer is its own
            work()
        finish(store)

    swept(trial)


@pytest.mark.exhaustive
def test_a_call_that_waits_in_vain() -> None:
    def trial(thrower: Thrower, store: MemoryStore, seen: EventRecorder) -> None:
        limiter = SyncLimiter(store, observe=seen)
        holder = Other(store, "holder", Demand("one", 1))

        def work() -> None:
            with suppress(LimiterError):
                limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), timeout=0.001)).release()

        with thrower.tracing(), suppress(Thrown):  # what is thrown into an observer is its own
            work()
        holder.leave()
        finish(store)

    swept(trial)
