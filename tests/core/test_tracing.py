"""Traces that travel in labels: where they come from and go to, and where they are not seen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    HolderSnapshot,
    Limiter,
    SyncLease,
    SyncLimiter,
    WaiterSnapshot,
    observe,
)
from limiter_core import events as of
from limiter_core.jobs import Job, SyncJobGate, Waiting
from limiter_core.tracing import (
    MAX_HEADER_LENGTH,
    in_trace_of,
    labelled,
    set_trace_source,
    split_label,
    with_trace,
)
from limiter_memory import MemoryStore

from ._tools import until_waiting, until_waiting_now

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("one"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
trace: ContextVar[str] = ContextVar("trace", default="")


@pytest.fixture
def traced() -> Iterator[None]:
    """A trace source that returns the value of the context variable."""
    set_trace_source(trace.get)
    yield
    set_trace_source(None)


@pytest.fixture
def queued() -> Iterator[list[of.Queued]]:
    """The events of calls that wait."""
    found: list[of.Queued] = []
    remove = observe(lambda event: found.append(event) if isinstance(event, of.Queued) else None)
    yield found
    remove()


def test_a_label_and_a_trace_are_joined_and_split() -> None:
    assert split_label(labelled("web-1", TRACE)) == ("web-1", TRACE)
    assert split_label(labelled("", TRACE)) == ("", TRACE)
    assert labelled("web-1", "") == "web-1"
    assert split_label("web-1") == ("web-1", "")


def test_without_a_source_a_request_is_as_long_as_its_label() -> None:
    store = MemoryStore()
    with SyncLimiter(store, label="web-1").hold(LIMIT):
        [holder] = store.inspect("one").holders
    assert (holder.label, holder.trace) == ("web-1", "")
    assert with_trace("web-1") == "web-1"


@pytest.mark.usefixtures("traced")
async def test_a_waiter_is_told_of_the_trace_of_the_holder(queued: list[of.Queued]) -> None:
    store = MemoryStore()
    limiter, sync = Limiter(store, label="web-1"), SyncLimiter(store, label="web-2")
    trace.set(TRACE)
    async with limiter.hold(LIMIT) as lease:
        [holder] = store.inspect("one").holders
        assert (holder.label, holder.trace) == ("web-1", TRACE)

        def wait() -> None:
            trace.set("00-other-00")
            with sync.hold(LIMIT):
                pass

        thread = threading.Thread(target=wait)
        thread.start()
        await until_waiting(store, "one", 1)
        [waiter] = store.inspect("one").waiters
        assert (waiter.label, waiter.trace) == ("web-2", "00-other-00")
        assert lease.lost is False
    thread.join()
    [event] = queued
    assert (event.label, event.blocker) == ("web-2", TRACE)


@pytest.mark.usefixtures("traced")
def test_a_call_outside_of_a_trace_carries_none(queued: list[of.Queued]) -> None:
    store = MemoryStore()
    limiter = SyncLimiter(store)
    with limiter.hold(LIMIT):
        thread = threading.Thread(target=lambda: limiter.acquire(LIMIT).release())
        thread.start()
        until_waiting_now(store, "one", 1)
        assert store.inspect("one").waiters[0].trace == ""
    thread.join()
    assert queued[0].blocker == ""


@pytest.mark.usefixtures("traced")
def test_a_job_carries_the_trace_of_its_delivery() -> None:
    store = MemoryStore()
    gate = SyncJobGate(store, "queue:shop", lambda _: None)
    token = trace.set(TRACE)
    lease = gate.admit(Job("one", LIMIT, ArgumentView({}), label="job one"))
    waiting = gate.admit(Job("two", LIMIT, ArgumentView({}), label="job two\x1ffaked"))
    trace.reset(token)
    assert isinstance(lease, SyncLease)
    assert isinstance(waiting, Waiting)
    snapshot = store.inspect("one")
    assert [(each.label, each.trace) for each in snapshot.holders] == [("job one", TRACE)]
    assert [(each.label, each.trace) for each in snapshot.waiters] == [("job two?faked", TRACE)]
    lease.release()
    gate.close()


def test_a_label_that_a_user_gives_carries_no_trace() -> None:
    store = MemoryStore()
    limiter = SyncLimiter(store, label=f"web-1\x1f{TRACE}")
    with limiter.hold(LIMIT):
        [holder] = store.inspect("one").holders
    assert (holder.label, holder.trace) == (f"web-1?{TRACE}", "")


@pytest.mark.parametrize("made", ["a\nb", "é", "a\x1fb", "a" * 201, None, 5, b"a"])
def test_what_is_no_trace_is_not_carried(made: object, caplog: pytest.LogCaptureFixture) -> None:
    set_trace_source(lambda: made)  # type: ignore[arg-type,return-value]
    try:
        assert with_trace("web-1") == "web-1"
        assert len(caplog.records) <= 1
    finally:
        set_trace_source(None)


def test_a_source_that_fails_fails_no_call_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> str:
        raise RuntimeError("no tracer")

    set_trace_source(fail)
    try:
        with caplog.at_level(logging.ERROR, "limiter"):
            for _ in range(3):
                with SyncLimiter().hold(LIMIT):
                    pass
    finally:
        set_trace_source(None)
    assert [record.getMessage() for record in caplog.records] == [
        "the trace source failed: calls carry no trace while it does"
    ]


@pytest.fixture
def traced_jobs() -> Iterator[None]:
    """A trace source that reads one header of a job's message."""
    set_trace_source(trace.get, lambda _: lambda: None, lambda: ["traceparent"])
    yield
    set_trace_source(None)


HEADERS = {"traceparent": TRACE, "attachment": "x" * 100_000, b"id": b"1", "retries": 2}


@pytest.mark.usefixtures("traced_jobs")
def test_of_the_headers_of_a_job_those_with_its_trace_are_kept() -> None:
    assert Job("one", LIMIT, ArgumentView({}), headers=HEADERS).headers == {"traceparent": TRACE}  # type: ignore[arg-type]


@pytest.mark.usefixtures("traced_jobs")
@pytest.mark.parametrize("value", [b"bytes", 5, None, ["a"], "x" * (MAX_HEADER_LENGTH + 1)])
def test_a_header_that_is_no_trace_is_not_kept(value: object) -> None:
    assert Job("one", LIMIT, ArgumentView({}), headers={"traceparent": value}).headers is None


def test_without_a_trace_source_no_header_is_kept() -> None:
    assert Job("one", LIMIT, ArgumentView({}), headers=HEADERS).headers is None  # type: ignore[arg-type]


@pytest.mark.usefixtures("traced_jobs")
def test_headers_that_are_no_mapping_fail_no_job(caplog: pytest.LogCaptureFixture) -> None:
    assert Job("one", LIMIT, ArgumentView({}), headers=[TRACE]).headers is None  # type: ignore[arg-type]
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("traced_jobs")
def test_tracing_that_ends_meanwhile_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Ending(dict[str, object]):
        def __len__(self) -> int:
            set_trace_source(None)
            return 1

    with in_trace_of(Ending(traceparent=TRACE)):
        pass
    assert caplog.records == []


def test_snapshots_split_a_label_that_carries_a_trace() -> None:
    text = labelled("web-1", TRACE)
    holder = HolderSnapshot("id", 1, 1, 1, 0.0, None, True, False, text)
    waiter = WaiterSnapshot("id", 1, 1, 0, None, 0.0, False, text)
    for snapshot in (holder, waiter):
        assert (snapshot.label, snapshot.trace) == ("web-1", TRACE)
