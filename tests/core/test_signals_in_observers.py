"""What a signal handler raises while an observer is called reaches the code that it interrupts."""

from __future__ import annotations

import enum
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter, events
from limiter_core.tracing import set_trace_source
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"))


class SoftTimeLimitExceeded(Exception):
    """As Celery's: an `Exception`."""


def exceed(*_: object) -> None:
    raise SoftTimeLimitExceeded


class Handler:
    def exceed(self, *_: object) -> None:
        raise SoftTimeLimitExceeded

    __call__ = exceed


@pytest.fixture(
    params=[exceed, Handler().exceed, functools.partial(exceed), Handler()],
    ids=["function", "method", "partial", "object"],
)
def handled(request: pytest.FixtureRequest) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


class Colour(enum.Enum):
    RED = "red"


class Counter(events.CountingObserver):
    def __init__(self, at: str) -> None:
        self._at = at

    def granted(self, *_: Any) -> None:
        self.note("Granted")

    def released(self, *_: Any) -> None:
        self.note("Released")

    def __call__(self, event: events.Event) -> None:
        self.note(type(event).__name__)

    def note(self, kind: str) -> None:
        if kind == self._at:
            signal.raise_signal(signal.SIGINT)


def observer(at: str) -> Callable[[events.Event], None]:
    return Counter(at).__call__


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("at", ["Granted", "Released"])
@pytest.mark.parametrize("make", [observer, Counter])
def test_a_soft_time_limit_in_an_observer(make: Callable[[str], Any], at: str) -> None:
    store = MemoryStore()
    limiter = SyncLimiter(store, observe=make(at))
    with pytest.raises(SoftTimeLimitExceeded), limiter.hold(ONE):
        pass
    assert store.inspect("one").in_use == 0


@pytest.mark.usefixtures("handled")
def test_a_soft_time_limit_in_a_trace_source() -> None:
    def source() -> str:
        signal.raise_signal(signal.SIGINT)
        return ""

    store = MemoryStore()
    set_trace_source(source)
    try:
        with pytest.raises(SoftTimeLimitExceeded), SyncLimiter(store).hold(ONE):
            pass
    finally:
        set_trace_source(None)
    assert store.inspect("one").in_use == 0


def test_a_failure_of_an_observer_in_an_enum(caplog: pytest.LogCaptureFixture) -> None:
    """`signal.SIG_DFL` is the member of an enum, and so shares code with all others."""

    def fail(event: events.Event) -> None:
        Colour(event)

    with SyncLimiter(MemoryStore(), observe=fail).hold(ONE):
        pass
    assert ["raised at" in record.message for record in caplog.records] == [True]
