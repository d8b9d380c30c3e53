"""Two tasks of Docket under one limit; prints the names of spans, their parents and links.

The providers are the global ones, which Docket uses: so it is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Annotated

from docket import Docket, Worker
from opentelemetry import trace

from limiter_docket import ConcurrencyLimit
from tests.otel._telemetry import Telemetry, instrumented


async def bill(customer: Annotated[int, ConcurrencyLimit(1)]) -> None:
    await asyncio.sleep(0.05 * customer)


async def work(telemetry: Telemetry) -> None:
    trace.set_tracer_provider(telemetry.tracer_provider)
    async with Docket(name="shop", url="memory://") as docket:
        with telemetry.tracer.start_as_current_span("producer"):
            for _ in range(2):
                await docket.add(bill)(1)
        short = timedelta(milliseconds=5)
        async with Worker(
            docket, minimum_check_interval=short, scheduling_resolution=short
        ) as worker:
            await worker.run_until_finished()


def main() -> None:
    with instrumented() as telemetry:
        asyncio.run(work(telemetry))
    spans = telemetry.exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context}
    found = [
        {
            "name": span.name,
            "parent": names.get(span.parent.span_id) if span.parent else None,
            "links": [names.get(link.context.span_id) for link in span.links],
        }
        for span in spans
    ]
    sys.stdout.write(json.dumps(found))


main()
