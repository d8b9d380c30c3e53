"""`LimiterInstrumentor`, as OpenTelemetry's convention has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any
from weakref import ref

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import TracerProvider, get_tracer

import limiter_core
from limiter_core.tracing import set_trace_source
from limiter_otel._metrics import Metrics
from limiter_otel._observer import OpenTelemetryObserver
from limiter_otel._spans import WaitSpans, current_traceparent, enter_trace_of, trace_fields


class LimiterInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # its module is not checked
    """Metrics and traces of all limiters and job queues of this process.

    There is one in a process, however often it is made. `instrument(tracer_provider=None,
    meter_provider=None)` begins, with the global providers where none are given; `uninstrument()`
    ends. Calls that began before are not counted.
    """

    _observer: OpenTelemetryObserver | None = None
    _metrics: Metrics | None = None
    _remove: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what has to be installed: this package is what is instrumented."""
        return (f"concurrency-limits >= {limiter_core.__version__}",)

    def _instrument(self, **kwargs: Any) -> None:
        self._metrics = metrics = _metrics_of(kwargs.get("meter_provider"))
        provider: TracerProvider | None = kwargs.get("tracer_provider")
        spans = WaitSpans(get_tracer("limiter_otel", limiter_core.__version__, provider))
        self._observer = OpenTelemetryObserver(metrics, spans)
        self._remove = limiter_core.observe(self._observer)
        set_trace_source(current_traceparent, enter_trace_of, trace_fields)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002  (a signature of the base class)
        set_trace_source(None)
        if self._remove is not None:
            self._remove()
        if self._metrics is not None:
            self._metrics.enabled = False
        self._remove = self._metrics = self._observer = None

    def forget_parent(self) -> None:
        """Begin from zero, in a process made by `fork`."""
        for _, metrics in _made:  # also those that are not in use: they may be so again
            metrics.counts.reset()
        if self._observer is not None:
            self._observer.forget()


class _GlobalProvider:
    """Stands for the global provider, whichever that will be."""


_GLOBAL = _GlobalProvider()
_made: list[tuple[ref[object], Metrics]] = []
"""The providers, and their instruments. A meter keeps the callbacks that it got first, and for
ever. A provider need not have a hash: Logfire's is a dataclass."""


def _metrics_of(provider: MeterProvider | None) -> Metrics:
    owner = _GLOBAL if provider is None else provider
    _made[:] = [each for each in _made if each[0]() is not None]
    metrics = next((made for known, made in _made if known() is owner), None)
    if metrics is None:
        metrics = Metrics(get_meter("limiter_otel", limiter_core.__version__, provider))
        _made.append((ref(owner), metrics))
    metrics.counts.nothing_held()
    metrics.enabled = True
    return metrics


def _after_fork_in_child() -> None:
    LimiterInstrumentor().forget_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
