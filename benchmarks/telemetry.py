"""OpenTelemetry: what metrics and traces cost, each contender beside itself without them.

The SDK has a reader of metrics, and sends spans in batches to an exporter that drops them. All runs
within a span, as in the handler of a request, so the trace context of each holder travels with its
lease. The memory store takes a few microseconds, so there the share is the highest.

A process that has been busy for a second measures a hundred holds a second, and makes a hundred
spans of waits; in the first second all until then. So each round begins with such a second, which
is not timed.

What is measured is CPU time, of this process and of the server: it is what telemetry takes from a
machine that has other work. In one process the best round counts, since noise only adds CPU time.
With a server, a round may also be fast by chance (many commands come with one read of a socket), so
there the median counts: of the times, and of the ratios within each round. What runs without
telemetry is measured twice: how far the second is from the first says what a ratio is worth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, closing
from statistics import median
from typing import Any, cast

import redis
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from harness import AsyncContender, Bar, Row, Settings, Table, cost, microseconds
from limiter_core import ConcurrencyLimit, Limiter, SyncLimiter
from limiter_otel import LimiterInstrumentor
from limiter_redis import RedisStore
from redis_server import NoServerError, Server, open_limiter, open_server

BUSY = 1.1
"""Seconds that a contender runs before it is timed."""
TASKS = 50
WAITERS = 20
LIMIT = ConcurrencyLimit("customer_id", max_concurrent=1)
WITH = "with OpenTelemetry: "
AGAIN = "again without: "
MEMORY = Bar(at_most=2.0)
REDIS = Bar(at_most=1.1)

Hold = Callable[[int], AbstractAsyncContextManager[Any]]
"""Takes and releases the slot of a customer."""


class _Dropped(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  (its task)
        return SpanExportResult.SUCCESS


class Telemetry:
    """The SDK, and the limiter's instrumentation that is switched on and off."""

    def __init__(self) -> None:
        self._meters = MeterProvider([InMemoryMetricReader()])
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(BatchSpanProcessor(_Dropped()))
        self._tracer = self._tracers.get_tracer("benchmark")

    def close(self) -> None:
        """End the SDK's threads."""
        self._meters.shutdown()
        self._tracers.shutdown()

    def on(self) -> AbstractContextManager[object]:
        """Measure and trace, and make a span current; for the time of a block."""
        LimiterInstrumentor().instrument(
            meter_provider=self._meters, tracer_provider=self._tracers, skip_dep_check=True
        )
        return self._tracer.start_as_current_span("request")

    def beside(self, contenders: Mapping[str, AsyncContender]) -> dict[str, AsyncContender]:
        """Return each contender, the same with OpenTelemetry, and once more without."""

        def observed(contender: AsyncContender) -> AsyncContender:
            async def run(operations: int) -> None:
                with self.on():
                    await contender(operations)
                LimiterInstrumentor().uninstrument()

            return run

        all_of_them: dict[str, AsyncContender] = {}
        for name, contender in contenders.items():
            all_of_them[name] = contender
            all_of_them[WITH + name] = observed(contender)
            all_of_them[AGAIN + name] = contender
        return all_of_them


def tables(settings: Settings) -> list[Table]:
    """Measure on the memory store and on a server, or report why there is none."""
    with closing(Telemetry()) as telemetry:
        made = [asyncio.run(_memory(telemetry, settings))]
        try:
            with open_server() as server:
                made.append(asyncio.run(_redis(telemetry, server, settings)))
                made.append(asyncio.run(_threads(telemetry, server, settings)))
        except NoServerError as error:
            made.append(Table("Redis", "", "", notes=[str(error)]))
    return made


def _cpu_time_with(server: Server) -> Callable[[], float]:
    """Return what reads the CPU time of this process and a server, in seconds."""
    client = cast(Any, redis.Redis).from_url(server.url)

    def cpu_time() -> float:
        used: dict[str, float] = client.info("cpu")
        return time.process_time() + used["used_cpu_user"] + used["used_cpu_sys"]

    return cpu_time


async def _in_turns(
    contenders: Mapping[str, AsyncContender],
    operations: int,
    settings: Settings,
    cpu_time: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Return each contender's seconds of CPU time per operation, for all rounds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(3 if settings.quick else 15):
        in_turn = list(contenders.items())
        for name, contender in in_turn if number % 2 else reversed(in_turn):
            until = time.perf_counter() + BUSY
            while time.perf_counter() < until:
                await contender(operations // 10)
            started = cpu_time()
            await contender(operations)
            times[name].append((cpu_time() - started) / operations)
    return times


async def _memory(telemetry: Telemetry, settings: Settings) -> Table:
    limiter = Limiter("memory://")
    contenders = _contenders(lambda customer: limiter.hold(LIMIT, {"customer_id": customer}))
    del contenders[f"{TASKS} tasks on {TASKS} keys"]
    times = await _in_turns(telemetry.beside(contenders), 10_000, settings)
    rows = _rows({name: [min(each)] for name, each in times.items()}, {"no waiters": MEMORY})
    return Table(
        "memory store, with OpenTelemetry", "CPU time of an operation", "CPU time, to without", rows
    )


async def _redis(telemetry: Telemetry, server: Server, settings: Settings) -> Table:
    async with open_limiter(server.url, server.namespace) as limiter:
        contenders = _contenders(lambda customer: limiter.hold(LIMIT, {"customer_id": customer}))
        cpu_time = _cpu_time_with(server)
        times = await _in_turns(telemetry.beside(contenders), 2_000, settings, cpu_time)
    bars = dict.fromkeys(contenders, REDIS)
    return Table(
        "Redis, with OpenTelemetry",
        "CPU time of an operation",
        "CPU time, to without",
        _rows(times, bars),
    )


async def _threads(telemetry: Telemetry, server: Server, settings: Settings) -> Table:
    store = RedisStore(server.url, namespace=server.namespace)
    with closing(store), SyncLimiter(store) as limiter:

        def hold(operations: int) -> None:
            for _ in range(operations):
                with limiter.hold(LIMIT, {"customer_id": 42}):
                    pass

        async def in_thread(operations: int) -> None:
            await asyncio.to_thread(hold, operations)

        contenders = {"no waiters": in_thread}
        cpu_time = _cpu_time_with(server)
        times = await _in_turns(telemetry.beside(contenders), 2_000, settings, cpu_time)
    title = "Redis, a thread, with OpenTelemetry"
    return Table(
        title,
        "CPU time of an operation",
        "CPU time, to without",
        _rows(times, dict.fromkeys(contenders, REDIS)),
    )


def _rows(times: Mapping[str, list[float]], bars: Mapping[str, Bar]) -> list[Row]:
    """Return a row for each contender: its time, and the ratio to the time without telemetry."""

    def row(name: str) -> Row:
        without = name.removeprefix(WITH).removeprefix(AGAIN)
        bar = bars.get(without) if name.startswith(WITH) else None
        return Row(name, microseconds(median(times[name])), cost(times[name], times[without]), bar)

    return [row(name) for name in times]


def _contenders(hold: Hold) -> dict[str, AsyncContender]:
    async def alone(operations: int, customer: int = 42, waits: float | None = None) -> None:
        for _ in range(operations):
            async with hold(customer):
                if waits is not None:
                    await asyncio.sleep(waits)

    async def on_keys(operations: int) -> None:
        await asyncio.gather(*(alone(operations // TASKS, task) for task in range(TASKS)))

    async def on_one_key(operations: int) -> None:
        share = operations // (WAITERS + 1)
        await asyncio.gather(*(alone(share, waits=0) for _ in range(WAITERS + 1)))

    return {
        "no waiters": alone,
        f"{TASKS} tasks on {TASKS} keys": on_keys,
        f"one slot, handed on to {WAITERS} waiters": on_one_key,
    }
