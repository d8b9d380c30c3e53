"""How much one server can do: the simulation's scenarios, with costs measured on a real server.

    python benchmarks/simulate.py                 the tables
    python benchmarks/simulate.py --plot FILE     the figure of docs/explanation/scale.md as well

First it measures the cost of each operation: processor time of a real server per operation, each
sent alone (operations that one process requests in one tick are sent together and cost less). Then
it simulates the workloads with these costs; see simulation.py.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from limiter_core.requests import Answer, Demand, Granted, Loss, Queued, Request
from limiter_redis import RedisStore
from redis_server import Server, open_server
from simulation import Operation, Report, Simulation, Workload, World

PROCESSES = 10_000
KEYS = 1_000_000
MEASURED = 2_000
"""The number of measured operations of each kind."""

FULL = 0.6
"""The load that a server can have; above it, the queue of operations grows fast."""

WORKLOADS = (
    Workload("a key per customer", PROCESSES, KEYS, calls=3_000, body=1.0, limit=1),
    Workload("popular customers", PROCESSES, KEYS, calls=1_500, body=0.3, limit=3, skew=1.0),
    Workload("one key for all", PROCESSES, 1, calls=950, body=0.1, limit=100),
    Workload("long jobs", PROCESSES, KEYS, calls=25, body=300.0, limit=1),
)


class _Nobody:
    """A listener that does nothing: the server only needs that a waiter has one."""

    def look_again(self, answer: Answer | None = None) -> bool:
        del answer
        return True

    def lease_renewed(self, expires_at: float) -> None: ...

    def lease_lost(self, loss: Loss) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a real server.

    Attributes:
        costs: seconds of its processor, per operation.
        holder: bytes of a key with one holder.
        waiter: bytes that each ticket adds to a key.
    """

    costs: dict[Operation, float]
    holder: float
    waiter: float


def measure(server: Server) -> Measured:
    """Measure the cost of each operation on the server, and the memory of its records."""
    here = RedisStore(server.url, namespace=server.namespace)
    there = RedisStore(server.url, namespace=server.namespace)
    listener = _Nobody()

    def requests(kind: str) -> list[Request]:
        return [
            Request(f"{kind}-{number}", (Demand(f"key={number}", 1),), 600.0, listener=listener)
            for number in range(MEASURED)
        ]

    def each(what: Callable[[Request], Any], of: Iterable[Request], expected: object) -> float:
        before = _processor_seconds(server)
        for request in of:
            answer = what(request)
            assert isinstance(answer, expected) if isinstance(expected, type) else answer, answer
        return (_processor_seconds(server) - before) / MEASURED

    def acquire(store: RedisStore) -> Callable[[Request], Answer]:
        return store.sync_face().acquire

    def release(store: RedisStore) -> Callable[[Request], bool]:
        face = store.sync_face()
        return lambda request: face.release(request.id, [request.demands[0].key])

    holders, waiters = requests("holder"), requests("waiter")
    costs: dict[Operation, float] = {}
    empty = server.memory()
    costs["acquire"] = each(acquire(here), holders, Granted)
    held = server.memory()
    costs["renew"] = each(lambda it: not here.sync_face().renew([it.id]).gone, holders, True)
    costs["queue"] = each(acquire(there), waiters, Queued)
    waited = server.memory()
    costs["hand over"] = each(release(here), holders, True)
    costs["claim"] = each(acquire(there), waiters, Granted)
    each(release(there), waiters, True)
    each(acquire(here), holders, Granted)
    costs["release"] = each(release(here), holders, True)
    for store in (here, there):
        store.sync_face().close()
    return Measured(costs, (held - empty) / MEASURED, (waited - held) / MEASURED)


def _processor_seconds(server: Server) -> float:
    used = server.admin.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


# -- scenarios -------------------------------------------------------------------------------------


def simulate(workload: Workload, world: World, seconds: float) -> Report:
    """Simulate a workload, and report from the steady state on."""
    return Simulation(workload, world).run(seconds, warm_up=min(3 * workload.body, 900.0) + 1)


def lines(measured: Measured, seconds: float) -> list[tuple[str, ...]]:
    """Simulate all workloads, and return one line of the report for each."""
    found: list[tuple[str, ...]] = [
        ("", "calls/s", "operations/s", "heartbeats/s", "leases", "tickets", "server busy",
         "idle p50", "idle p99", "memory", "servers")
    ]  # fmt: skip
    for workload in WORKLOADS:
        report = simulate(workload, World(measured.costs), seconds)
        assert not report.over, f"{workload.name}: {report.over} times above the limit"
        memory = report.holders * measured.holder + report.waiters * measured.waiter
        found.append(
            (
                workload.name,
                f"{workload.calls:,.0f}",
                f"{report.operations_per_second:,.0f}",
                f"{report.renewals_per_second:,.0f}",
                f"{report.holders:,}",
                f"{report.waiters:,}",
                f"{report.load:.0%}",
                *(_milliseconds(value) for value in _middle_and_end(report.idle)),
                f"{memory / 1e6:.1f} MB",
                f"{math.ceil(report.load / FULL)}",
            )
        )
    return found


def fairness(world: World, seconds: float) -> list[tuple[str, ...]]:
    """Simulate a key with one busy tenant, served in order of arrival, and in turn."""
    flooded = Workload(
        "a flooded key", 100, 1, calls=98, body=0.1, limit=10, tenants=20, fair=False
    )
    found: list[tuple[str, ...]] = [("", "the loud tenant waits", "the others", "worst of theirs")]
    for name, fair in (("in order of arrival", False), ("fair_by tenant", True)):
        waits = simulate(replace(flooded, fair=fair), world, seconds * 4).waits
        others = [wait for tenant, of in waits.items() if tenant for wait in of]
        found.append(
            (name, _milliseconds(median(waits[0])), _milliseconds(median(others)),
             _milliseconds(_middle_and_end(others)[1]))
        )  # fmt: skip
    return found


def growth(world: World, seconds: float) -> dict[str, list[tuple[float, Report]]]:
    """Simulate two workloads at rising rates."""
    rates = (250, 500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000)
    free, popular = WORKLOADS[0], WORKLOADS[1]
    return {
        workload.name: [
            (rate, simulate(replace(workload, calls=rate), world, seconds)) for rate in rates
        ]
        for workload in (free, popular)
    }


def _middle_and_end(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    if len(values) < 2:
        return (math.nan, math.nan)
    return median(values), quantiles(values, n=100)[98]


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.1f} ms"


def _print(title: str, rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(title)
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join((first.strip().ljust(widths[0]), *others)))
    print()


def plot(found: dict[str, list[tuple[float, Report]]], path: Path) -> None:
    """Plot the load of the server, and the idle time of a slot, over the calls per second."""
    pyplot: Any = importlib.import_module("matplotlib.pyplot")  # only the plot needs it
    figure, (busy, idle) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for name, points in found.items():
        rates = [rate for rate, _ in points]
        busy.plot(rates, [100 * report.load for _, report in points], marker="o", label=name)
    busy.axhline(100 * FULL, color="grey", linestyle="--", linewidth=1)
    busy.set(xlabel="calls per second", ylabel="one server is busy, %", ylim=(0, 105))
    busy.legend(frameon=False)
    points = found["popular customers"]
    for label, which in (("median", 0), ("99 of 100 below", 1)):
        delays = [1e3 * _middle_and_end(report.idle)[which] for _, report in points]
        idle.plot([100 * report.load for _, report in points], delays, marker="o", label=label)
    idle.set(xlabel="one server is busy, %", ylabel="a slot is idle, ms", ylim=(0, None))
    idle.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, simulate and print."""
    options = argparse.ArgumentParser(description="Simulate thousands of processes.")
    options.add_argument("--seconds", type=float, default=20.0, help="to simulate, per workload")
    options.add_argument("--plot", type=Path, help="where to draw the figure (an .svg)")
    chosen = options.parse_args()
    with open_server() as server:
        print(f"measured on {server}\n")
        measured = measure(server)
    world = World(measured.costs)
    costs = [(name, f"{cost * 1e6:.0f} us") for name, cost in measured.costs.items()]
    _print("processor time of the server, per operation", [("", ""), *costs])
    print(f"bytes: {measured.holder:.0f} a key with its holder, {measured.waiter:.0f} a ticket\n")
    _print(f"{PROCESSES:,} processes, {KEYS:,} keys", lines(measured, chosen.seconds))
    _print("a key that one tenant floods", fairness(world, chosen.seconds))
    if chosen.plot is not None:
        plot(growth(world, chosen.seconds / 2), chosen.plot)


if __name__ == "__main__":
    main()
