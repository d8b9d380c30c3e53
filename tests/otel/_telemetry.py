"""What was measured and traced, read as a test compares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from limiter_otel import LimiterInstrumentor


class Telemetry:
    """Providers of the SDK that keep all in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracer_provider.get_tracer("test")

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics that have a value, by name."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> Sequence[Any]:
        """Return the points of a metric; none if it has no value."""
        metric = self.metrics().get(name)
        return () if metric is None else metric.data.data_points

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a counter, or the counts of a histogram, by its attributes."""
        return {
            tuple(str(value) for _, value in sorted((point.attributes or {}).items())): (
                point.count if hasattr(point, "count") else point.value
            )
            for point in self.points(name)
        }

    def waits(self) -> list[ReadableSpan]:
        """Return the spans of waits that have ended."""
        spans = self.exporter.get_finished_spans()
        return [span for span in spans if span.name.startswith("wait ")]

    def waiting_remembered(self) -> int:
        """Return of how many waits something is kept."""
        observer = LimiterInstrumentor()._observer
        assert observer is not None
        return len(observer._waits) + len(observer._jobs)


@contextmanager
def instrumented() -> Iterator[Telemetry]:
    """Instrument this process, for the time of a block."""
    telemetry = Telemetry()
    LimiterInstrumentor().instrument(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider
    )
    try:
        yield telemetry
    finally:
        LimiterInstrumentor().uninstrument()
