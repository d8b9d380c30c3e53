"""OpenTelemetry: metrics of a limit, and a wait that links to the span of the holder.

Two requests bill the same customer, of whom one bill is made at a time. The second waits. Its trace
has a span `wait customer`, with a link to the request that held the slot; so a slow request says
which other request it waited for, also one on another machine.

A program of yours sets providers that export to a backend, and calls `instrument()` without
arguments; or it is started by `opentelemetry-instrument`.

(The file is not named after the package: Python would import it in its place.)

It prints::

    limiter.calls: 2 of customer_id, granted
    limiter.hold.duration: 2 of customer_id, released
    limiter.wait.duration: 1 of customer_id, granted

    span: first request
    span: second request
    span: wait customer_id
      in second request
      linked to first request
      limiter.name customer_id, limiter.outcome granted, limiter.key customer_id=42
"""

import asyncio

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from limiter_core import ConcurrencyLimit, Limiter
from limiter_otel import LimiterInstrumentor

reader = InMemoryMetricReader()
exporter = InMemorySpanExporter()
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(exporter))
LimiterInstrumentor().instrument(meter_provider=MeterProvider([reader]), tracer_provider=tracers)

tracer = tracers.get_tracer("example")
limiter = Limiter("memory://")
one_per_customer = ConcurrencyLimit("customer_id", max_concurrent=1)


@limiter.limited(one_per_customer)
async def bill(customer_id: int) -> str:
    await asyncio.sleep(0.02)  # the payment provider takes some time
    return f"customer {customer_id}: billed"


async def request(name: str) -> None:
    with tracer.start_as_current_span(f"{name} request"):
        await bill(customer_id=42)


def print_metrics() -> None:
    data = reader.get_metrics_data()
    assert data is not None
    for metric in sorted(data.resource_metrics[0].scope_metrics[0].metrics, key=lambda m: m.name):
        for point in metric.data.data_points:
            attributes = point.attributes or {}
            if "limiter.outcome" in attributes:
                count = point.value if isinstance(point, NumberDataPoint) else point.count
                of = f"{attributes['limiter.name']}, {attributes['limiter.outcome']}"
                print(f"{metric.name}: {count} of {of}")


def print_spans() -> None:
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.name)
    names = {span.context.span_id: span.name for span in spans if span.context}
    for span in spans:
        print(f"span: {span.name}")
        if span.parent:
            print(f"  in {names[span.parent.span_id]}")
        for link in span.links:
            print(f"  linked to {names[link.context.span_id]}")
        if span.attributes:
            print("  " + ", ".join(" ".join(map(str, item)) for item in span.attributes.items()))


async def main() -> None:
    await asyncio.gather(request("first"), request("second"))
    print_metrics()
    print()
    print_spans()


asyncio.run(main())
