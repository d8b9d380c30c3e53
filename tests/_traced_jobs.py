"""Two jobs under one limit in a real worker, whose spans are in a file: for each queue.

The first job holds the slot until the test lets bodies end, while the second one waits.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, get_tracer

from limiter_core import LIMIT_BY, SyncLimiter
from limiter_otel import LimiterInstrumentor
from limiter_redis import RedisStore
from tests._job_events import FOLDER
from tests.faults._jobs import Framework, Worker
from tests.redis._tools import until

KEY = "one"
STRATEGY = LIMIT_BY.constant(KEY)


# -- in a worker -----------------------------------------------------------------------------------


class _SpanFile(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with (FOLDER / "spans").open("a", encoding="utf-8") as file:
            for span in spans:
                file.write(json.dumps(_noted(span)) + "\n")
        return SpanExportResult.SUCCESS


def _noted(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "id": _ids(span.context),
        "parent": _ids(span.parent),
        "links": [_ids(link.context) for link in span.links],
    }


def _ids(context: SpanContext | None) -> list[str] | None:
    return context and [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


def trace() -> TracerProvider:
    """Trace the limits of this process, into a file."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_SpanFile()))
    LimiterInstrumentor().instrument(tracer_provider=provider)
    return provider


class JobSpans:
    """Makes a span for each job, current from before it until after it, as instrumentations do."""

    def __init__(self) -> None:
        self._tracer = get_tracer("test", tracer_provider=trace())

    async def begin(self, ctx: Any) -> None:
        """Begin the span of a job."""
        job = ctx.get("job")  # SAQ's; arq has its id
        name = ctx["job_id"] if job is None else job.key
        ctx["span"] = span = self._tracer.start_as_current_span(f"job {name}")
        span.__enter__()

    async def end(self, ctx: Any) -> None:
        """End it."""
        ctx.pop("span").__exit__(None, None, None)


# -- in a test -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """A span, as the worker noted it."""

    name: str
    id: list[str]
    parent: list[str] | None
    links: list[list[str]]


async def spans_of_two_jobs(
    framework: Framework, url: str, folder: Path, add: Callable[[str], Awaitable[object]]
) -> Sequence[Span]:
    """Return the spans of a worker in which the job `second` waits for `first`."""

    def spans(name: str = "") -> list[Span]:
        file = folder / "spans"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        found = [Span(**json.loads(line)) for line in lines]
        return [span for span in found if span.name.startswith(name)]

    environment: Mapping[str, str] = {"JOBS_EVENTS": str(folder)}
    address = f"{url.removesuffix('/0')}/{framework.database}"
    store = RedisStore(address, namespace=framework.namespace)
    with (
        closing(Worker(framework, url, folder / "worker", environment)) as worker,
        closing(store),
        SyncLimiter(store) as limiter,
    ):
        try:
            await add("first")
            await until(lambda: limiter.inspect(KEY).in_use == 1, "the first job runs")
            await add("second")
            await until(lambda: limiter.inspect(KEY).waiting == 1, "the second job waits")
            (folder / "may end").touch()
            await until(lambda: bool(spans("wait ")), "the span of a wait")
            await until(lambda: limiter.inspect(KEY).in_use == 0, "both jobs have ended")
            worker.stop()
        except BaseException:
            print(worker.said(None))  # noqa: T201  (for the report of a failure)
            raise
    return spans()


def named(spans: Sequence[Span], name: str) -> list[Span]:
    """Return the spans of a name."""
    return [span for span in spans if span.name == name]
