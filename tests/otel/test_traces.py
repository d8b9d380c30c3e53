"""Traces: the spans of calls that wait, their parents, and their links to the holders."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import anyio
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, Superseded, SyncLimiter, WaitTimeout
from limiter_core.arguments import ArgumentView
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore
from limiter_otel._sample import PER_SECOND
from limiter_otel._spans import span_context_of
from tests.core._tools import Thread, until_waiting, until_waiting_now

from ._telemetry import Telemetry

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, name="billing")


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def test_a_call_that_does_not_wait_has_no_span(telemetry: Telemetry) -> None:
    limiter = Limiter("memory://")
    lease = await limiter.acquire(ONE)
    assert await limiter.try_acquire(ONE) is None
    with pytest.raises(WaitTimeout):
        await limiter.acquire(ONE, timeout=0)
    await lease.release()
    assert telemetry.waits() == []


async def test_a_wait_is_a_span_of_its_caller(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock
) -> None:
    limiter = Limiter(store)

    async def wait() -> None:
        with telemetry.tracer.start_as_current_span("caller"):
            async with limiter.hold(ONE):
                pass

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        clock.advance(2)
    (span,) = telemetry.waits()
    assert span.name == "wait billing"
    assert span.kind is SpanKind.INTERNAL
    assert span.attributes == {
        "limiter.name": "billing",
        "limiter.key": "one",
        "limiter.outcome": "granted",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time is not None
    assert span.end_time is not None
    assert round((span.end_time - span.start_time) / 1e9, 3) == 2
    (caller,) = (each for each in telemetry.exporter.get_finished_spans() if each.name == "caller")
    assert span.parent == caller.context
    assert span.links == ()  # the holder had no span


async def test_a_thread_that_waits(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = SyncLimiter(store)

    def wait() -> None:
        with telemetry.tracer.start_as_current_span("caller"), limiter.hold(ONE):
            pass

    with telemetry.tracer.start_as_current_span("holder"), limiter.hold(ONE):
        waiter = Thread(wait)
        until_waiting_now(store, "one", 1)
    waiter.result()
    (span,) = telemetry.waits()
    (caller,) = (each for each in telemetry.exporter.get_finished_spans() if each.name == "caller")
    assert span.parent == caller.context


@pytest.mark.parametrize("ending", ["timeout", "superseded", "cancelled"])
async def test_a_wait_that_ends_otherwise(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock, ending: str
) -> None:
    limiter = Limiter(store)
    latest = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, on_conflict="keep_latest", name="latest")

    async def wait() -> None:
        with pytest.raises(WaitTimeout if ending == "timeout" else Superseded):
            await limiter.acquire(latest, timeout=5)

    lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait if ending != "cancelled" else lambda: limiter.acquire(latest))
        await until_waiting(store, "one", 1)
        if ending == "timeout":
            clock.advance(6)
            await until_waiting(store, "one", 0)
        elif ending == "superseded":
            with pytest.raises(WaitTimeout):
                await limiter.acquire(latest, timeout=0)
        else:
            tasks.cancel_scope.cancel()
    await lease.release()
    (span,) = telemetry.waits()
    assert span.attributes is not None
    assert span.attributes["limiter.outcome"] == ending
    if ending == "cancelled":  # its caller left, that is no error of the limit
        assert span.status.status_code is StatusCode.UNSET
    else:
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == ending


class CallOfAnApp(ArgumentView):
    """The call of an adapter that limits calls, not jobs, as that of ASGI apps does."""

    adapter = "asgi"


@pytest.mark.parametrize("ending", ["granted", "timeout", "suppressed"])
async def test_a_call_of_an_adapter_waits_as_any_other(
    telemetry: Telemetry, store: MemoryStore, clock: FakeClock, ending: str
) -> None:
    """It waits in this process, and its caller gets the error."""
    limiter = Limiter(store)

    async def wait() -> None:
        with (
            telemetry.tracer.start_as_current_span("request"),
            suppress_instrumentation() if ending == "suppressed" else nullcontext(),
            suppress(WaitTimeout),
        ):
            async with limiter.hold(ONE, CallOfAnApp({}), timeout=5):
                pass

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        assert telemetry.values("limiter.waiting")["asgi", "billing"] == 1
        if ending == "timeout":
            clock.advance(6)
            await until_waiting(store, "one", 0)
    assert telemetry.values("limiter.waiting")["asgi", "billing"] == 0
    if ending == "suppressed":
        assert telemetry.waits() == []
        return
    (span,) = telemetry.waits()
    (request,) = (s for s in telemetry.exporter.get_finished_spans() if s.name == "request")
    assert span.parent == request.context
    is_error = ending == "timeout"
    assert (span.status.status_code is StatusCode.ERROR) == is_error


async def test_waits_beyond_the_sample_are_counted_alone(
    telemetry: Telemetry, store: MemoryStore
) -> None:
    limiter = Limiter(store)
    many = 4 * PER_SECOND
    async with anyio.create_task_group() as tasks, limiter.hold(ONE):

        async def wait() -> None:
            async with limiter.hold(ONE):
                pass

        for _ in range(many):
            tasks.start_soon(wait)
        await until_waiting(store, "one", many)
        assert telemetry.values("limiter.waiting") == {("billing",): many}
    assert telemetry.values("limiter.waiting") == {("billing",): 0}
    assert telemetry.values("limiter.calls") == {("billing", "granted"): many + 1}
    (measured,) = telemetry.values("limiter.wait.duration").values()
    assert PER_SECOND <= measured < many
    assert len(telemetry.waits()) == measured
    assert telemetry.waiting_remembered() == 0


async def test_nothing_is_kept_of_calls_that_have_ended(
    telemetry: Telemetry, store: MemoryStore
) -> None:
    limiter = Limiter(store)
    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        for _ in range(50):
            tasks.start_soon(limiter.acquire, ONE)
        await until_waiting(store, "one", 50)
        assert telemetry.waiting_remembered() == 50
        tasks.cancel_scope.cancel()
    assert telemetry.waiting_remembered() == 0
    assert len(telemetry.waits()) == 50


async def test_traces_that_are_suppressed(telemetry: Telemetry, store: MemoryStore) -> None:
    limiter = Limiter(store)

    async def wait() -> None:
        with suppress_instrumentation():
            await (await limiter.acquire(ONE)).release()

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
    assert telemetry.waits() == []
    assert telemetry.values("limiter.wait.duration") == {("billing", "granted"): 1}


async def test_a_wait_links_to_the_span_of_the_holder(
    telemetry: Telemetry, store: MemoryStore
) -> None:
    limiter = Limiter(store, label="web-1")
    with telemetry.tracer.start_as_current_span("holder") as holder:
        lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with telemetry.tracer.start_as_current_span("waiter"):
                await (await limiter.acquire(ONE)).release()

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        assert store.inspect("one").holders[0].label == "web-1"
        await lease.release()
    (span,) = telemetry.waits()
    (link,) = span.links
    assert link.context.trace_id == holder.get_span_context().trace_id
    assert link.context.span_id == holder.get_span_context().span_id
    assert link.context.is_remote


async def test_spans_that_are_not_sampled_are_not_linked(
    telemetry: Telemetry, store: MemoryStore
) -> None:
    limiter = Limiter(store)
    unsampled = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    with unsampled.start_as_current_span("holder"):
        lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with telemetry.tracer.start_as_current_span("waiter"):
                await (await limiter.acquire(ONE)).release()

        tasks.start_soon(wait)
        await until_waiting(store, "one", 1)
        await lease.release()
    (span,) = telemetry.waits()
    assert span.links == ()


@pytest.mark.parametrize("text", ["", "nonsense", "00-0-0-01", "00-" + "0" * 32 + "-1-01"])
def test_a_traceparent_that_is_none(text: str) -> None:
    assert span_context_of(text) is None
