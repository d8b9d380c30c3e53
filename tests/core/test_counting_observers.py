"""Observers that count: what happens to most calls is counted, without an event."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import anyio
import pytest

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.events import CountingObserver
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._tools import until_waiting

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
