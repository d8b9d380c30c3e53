"""The instrumentor: where it is found, which providers it takes, and that it can be removed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pytest
from opentelemetry.metrics import Meter
from opentelemetry.metrics import MeterProvider as APIMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_otel import LimiterInstrumentor
from tests.core._tools import fork

from ._telemetry import Telemetry, instrumented

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), 1)


def hold_once() -> None:
    with SyncLimiter("memory://") as limiter, limiter.hold(ONE):
        pass


def test_it_is_found_by_its_entry_point() -> None:
    (found,) = entry_points(group="opentelemetry_instrumentor", name="limiter")
    assert found.load() is LimiterInstrumentor


def test_what_it_needs_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    instrumentor = LimiterInstrumentor()
    (needed,) = instrumentor.instrumentation_dependencies()
    assert needed.startswith("concurrency-limits >=")
    instrumentor.instrument()
    assert instrumentor.is_instrumented_by_opentelemetry
    instrumentor.uninstrument()
    assert not caplog.records


def test_after_uninstrument_nothing_is_reported(telemetry: Telemetry) -> None:
    hold_once()
    assert telemetry.values("limiter.calls") == {("one", "granted"): 1}
    LimiterInstrumentor().uninstrument()
    hold_once()
    assert telemetry.points("limiter.calls") == ()
    LimiterInstrumentor().instrument(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider
    )
    hold_once()
    assert telemetry.values("limiter.calls") == {("one", "granted"): 2}, "counters never fall"


def test_leases_that_outlive_it_are_forgotten(telemetry: Telemetry) -> None:
    limiter = SyncLimiter("memory://")
    with limiter.hold(ONE):
        LimiterInstrumentor().uninstrument()
        LimiterInstrumentor().instrument(
            tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider
        )
        assert telemetry.values("limiter.held") == {("one",): 0}
    assert telemetry.values("limiter.held") == {("one",): 0}


@dataclass
class ProviderWithoutHash(APIMeterProvider):
    """As that of Logfire."""

    provider: APIMeterProvider

    def get_meter(self, name: str, *args: Any, **settings: Any) -> Meter:
        return self.provider.get_meter(name, *args, **settings)


def test_a_provider_without_a_hash() -> None:
    reader = InMemoryMetricReader()
    provider = ProviderWithoutHash(MeterProvider([reader]))
    for count in (1, 2):
        LimiterInstrumentor().instrument(meter_provider=provider)
        hold_once()
        assert f'"value": {count}' in _calls(reader)
        LimiterInstrumentor().uninstrument()


def _calls(reader: InMemoryMetricReader) -> str:
    data = reader.get_metrics_data()
    assert data is not None
    (found,) = [
        metric
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "limiter.calls"
    ]
    return found.to_json()


def test_another_provider_begins_from_zero(telemetry: Telemetry) -> None:
    hold_once()
    LimiterInstrumentor().uninstrument()
    reader = InMemoryMetricReader()
    LimiterInstrumentor().instrument(meter_provider=MeterProvider([reader]))
    assert reader.get_metrics_data() is None
    assert telemetry.points("limiter.calls") == ()


GLOBAL = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from limiter_otel import LimiterInstrumentor
from tests.otel.test_instrumentor import hold_once

reader = InMemoryMetricReader()
{order}
hold_once()
(resource,) = reader.get_metrics_data().resource_metrics
(scope,) = resource.scope_metrics
print(scope.scope.name, sorted(metric.name for metric in scope.metrics))
"""
PROVIDERS = "metrics.set_meter_provider(MeterProvider([reader]))"
INSTRUMENT = "LimiterInstrumentor().instrument()"


@pytest.mark.parametrize(
    "order", [(PROVIDERS, INSTRUMENT), (INSTRUMENT, PROVIDERS)], ids=["before", "after"]
)
def test_the_global_providers_are_used(order: tuple[str, str]) -> None:
    """Also if they are set later: programs do it in any order."""
    run = subprocess.run(
        [sys.executable, "-c", GLOBAL.format(order="\n".join(order))],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == "limiter_otel"
    assert "limiter.calls" in run.stdout


def test_a_forked_child_counts_for_itself() -> None:
    with instrumented() as telemetry:
        limiter = SyncLimiter("memory://")
        with limiter.hold(ONE):
            child = fork()
            if child == 0:
                hold_once()
                counted = (telemetry.values("limiter.calls"), telemetry.values("limiter.held"))
                os._exit(0 if counted == ({("one", "granted"): 1}, {("one",): 0}) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert telemetry.values("limiter.held") == {("one",): 1}
        assert telemetry.values("limiter.calls") == {("one", "granted"): 1}


def test_a_forked_child_that_is_instrumented_anew_counts_for_itself() -> None:
    with instrumented() as telemetry:
        hold_once()
    child = fork()
    if child == 0:
        LimiterInstrumentor().instrument(meter_provider=telemetry.meter_provider)
        hold_once()
        os._exit(0 if telemetry.values("limiter.calls") == {("one", "granted"): 1} else 1)
    assert os.waitpid(child, 0)[1] == 0
