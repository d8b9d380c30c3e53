"""Jobs: what is measured and traced of jobs that a gate admits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanContext

from limiter_core import ConcurrencyLimit, LimitReached
from limiter_core.jobs import JobGate, Waiting
from limiter_core.lease import Lease
from limiter_memory import MemoryStore
from tests.core._gates import Gate, job

from ._telemetry import Telemetry

NAME = "customer"


@pytest.fixture(params=["async", "sync"])
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    gate = Gate(request.param, MemoryStore(), "docket:shop")
    yield gate
    gate.close()


def admitted(gate: Gate, name: str) -> Lease:
    lease = gate.admit(job(name))
    assert not isinstance(lease, Waiting)
    return lease


def delivered(telemetry: Telemetry, gate: Gate, name: str) -> tuple[Any, SpanContext]:
    """Ask for a job within the span of its delivery; return the answer, and the span."""
    tracer: Any = telemetry.tracer

    async def in_loop() -> tuple[Any, SpanContext]:
        with tracer.start_as_current_span("delivery") as span:
            return await gate.gate.admit(job(name)), span.get_span_context()

    def in_thread() -> tuple[Any, SpanContext]:
        with tracer.start_as_current_span("delivery") as span:
            return gate.gate.admit(job(name)), span.get_span_context()

    return gate.run(in_loop if isinstance(gate.gate, JobGate) else in_thread)


def test_a_job_that_runs_at_once(telemetry: Telemetry, gate: Gate) -> None:
    lease = admitted(gate, "a")
    assert telemetry.values("limiter.held") == {("docket", NAME): 1}
    gate.run(lease.release)
    assert telemetry.values("limiter.held") == {("docket", NAME): 0}
    assert telemetry.values("limiter.calls") == {("docket", NAME, "granted"): 1}
    assert telemetry.values("limiter.hold.duration") == {("docket", NAME, "released"): 1}
    assert telemetry.waits() == []


def test_a_job_that_waits(telemetry: Telemetry, gate: Gate) -> None:
    lease, first = delivered(telemetry, gate, "a")
    answer, _ = delivered(telemetry, gate, "b")
    assert isinstance(answer, Waiting)
    assert telemetry.values("limiter.waiting") == {}, "a job waits in the store"
    assert telemetry.waits() == []
    gate.run(lease.release)
    lease, second = delivered(telemetry, gate, "b")
    gate.run(lease.release)
    assert telemetry.values("limiter.wait.duration") == {("docket", NAME, "granted"): 1}
    (span,) = telemetry.waits()
    assert span.name == f"wait {NAME}"
    assert span.attributes == {
        "limiter.adapter": "docket",
        "limiter.name": NAME,
        "limiter.key": "customer=42",
        "limiter.outcome": "granted",
    }
    assert span.parent is not None
    assert span.parent.span_id == second.span_id
    (link,) = span.links
    assert link.context.span_id == first.span_id
    assert telemetry.waiting_remembered() == 0


def test_a_job_that_is_refused(telemetry: Telemetry, gate: Gate) -> None:
    lease = admitted(gate, "a")
    with pytest.raises(LimitReached):
        gate.admit(job("b", ConcurrencyLimit("customer", 1, on_conflict="cancel")))
    gate.run(lease.release)
    assert telemetry.values("limiter.calls") == {
        ("docket", NAME, "granted"): 1,
        ("docket", NAME, "full"): 1,
    }


def test_jobs_that_are_granted_elsewhere_are_forgotten(
    telemetry: Telemetry, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limiter_otel._observer.MOST_JOBS", 5)
    lease = admitted(gate, "a")
    for number in range(20):
        assert isinstance(gate.admit(job(f"waits {number}")), Waiting)
    assert telemetry.waiting_remembered() == 5
    gate.run(lease.release)
