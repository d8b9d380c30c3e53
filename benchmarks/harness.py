"""How the benchmarks measure and report: rounds in turn, ratios in a table.

A single time says more about the machine than about the code, so every number is compared with the
number of a peer in the same run. The contenders take turns within each round, so other load on the
machine disturbs all of them equally. In one process the best round of each contender counts, since
noise only adds time. With a server, which may also have a lucky moment, the median counts: of the
times, and of the ratios within each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

AsyncContender = Callable[[int], Coroutine[Any, Any, None]]
"""Does so many operations, in the running event loop."""

Contender = Callable[[int], None]
"""Does so many operations."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure.

    Attributes:
        quick: a tenth of the work: enough to see that it runs, with rough figures.
    """

    quick: bool = False

    @property
    def rounds(self) -> int:
        """Rounds per comparison."""
        return 5 if self.quick else 25

    def scaled(self, count: int) -> int:
        """Return how many of `count` to do."""
        return max(1, count // 10) if self.quick else count


@dataclass(frozen=True, slots=True)
class Bar:
    """The bounds of a ratio.

    Attributes:
        at_most: the ratio may not be higher.
        at_least: the ratio may not be lower.
        stretch: a bound that is a further aim.
    """

    at_most: float | None = None
    at_least: float | None = None
    stretch: float | None = None

    def __str__(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_least is None else (">=", self.at_least)
        return f"{sign} {bound:.2f}" + (f" (aim {self.stretch:.2f})" if self.stretch else "")

    def verdict(self, ratio: float) -> str:
        """Return whether the ratio passes, as text."""
        if self.at_most is not None and ratio > self.at_most:
            return "missed"
        if self.at_least is not None and ratio < self.at_least:
            return "missed"
        if self.stretch is None:
            return "met"
        return "met, and the aim" if ratio <= self.stretch else "met"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    name: str
    value: str
    ratio: float | None = None
    bar: Bar | None = None


@dataclass(slots=True)
class Table:
    """A comparison.

    Attributes:
        title: what is compared.
        unit: the heading of the column of values.
        of: what the ratios compare.
        rows: the lines.
        notes: remarks below the rows, for example which peer is missing and why.
    """

    title: str
    unit: str
    of: str
    rows: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        lines = [("", self.unit, "ratio", "", "")]
        if any(row.bar for row in self.rows):
            lines = [("", self.unit, "ratio", "bar", "")]
        for row in self.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            bar = "" if row.bar is None else str(row.bar)
            verdict = ""
            if row.bar is not None and row.ratio is not None:
                verdict = row.bar.verdict(row.ratio)
            lines.append((row.name, row.value, ratio, bar, verdict))
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        text = [f"{self.title}  [ratio: {self.of}]"]
        for name, value, ratio, bar, verdict in lines:
            text.append(
                f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {ratio:>{widths[2]}}  "
                f"{bar:<{widths[3]}}  {verdict}".rstrip()
            )
        return "\n".join(text + [f"  ({note})" for note in self.notes])

    def missed(self) -> int:
        """Count the missed bars."""
        return sum(
            row.bar.verdict(row.ratio) == "missed"
            for row in self.rows
            if row.bar is not None and row.ratio is not None
        )


async def compare(
    contenders: Mapping[str, AsyncContender], operations: int, settings: Settings
) -> dict[str, float]:
    """Return each contender's seconds per operation, in its best round."""
    times = await in_turns(contenders, operations, settings.rounds)
    return {name: min(rounds) for name, rounds in times.items()}


def compare_plain(
    contenders: Mapping[str, Contender], operations: int, settings: Settings
) -> dict[str, float]:
    """Do as `compare` does, without an event loop."""
    times = in_turns_plain(contenders, operations, settings.rounds)
    return {name: min(rounds) for name, rounds in times.items()}


async def in_turns(
    contenders: Mapping[str, AsyncContender], operations: int, rounds: int
) -> dict[str, list[float]]:
    """Return each contender's seconds per operation, for all rounds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        await contender(max(1, operations // 10))  # warm up
    for _ in range(rounds):
        for name, contender in contenders.items():
            started = time.perf_counter()
            await contender(operations)
            times[name].append((time.perf_counter() - started) / operations)
    return times


def in_turns_plain(
    contenders: Mapping[str, Contender], operations: int, rounds: int
) -> dict[str, list[float]]:
    """Do as `in_turns` does, without an event loop."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender(max(1, operations // 10))
    for _ in range(rounds):
        for name, contender in contenders.items():
            started = time.perf_counter()
            contender(operations)
            times[name].append((time.perf_counter() - started) / operations)
    return times


def cost_rows(best: Mapping[str, float], peer: str, bars: Mapping[str, Bar]) -> list[Row]:
    """Return a row per contender: its time, and the ratio to the peer's time."""
    return [
        Row(name, microseconds(seconds), seconds / best[peer], bars.get(name))
        for name, seconds in best.items()
    ]


def rate_rows(best: Mapping[str, float], peer: str, bars: Mapping[str, Bar]) -> list[Row]:
    """Return a row per contender: its time, and the ratio to the peer's rate."""
    return [
        Row(name, microseconds(seconds), best[peer] / seconds, bars.get(name))
        for name, seconds in best.items()
    ]


def cost(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Return our time divided by the peer's time: the median of the rounds."""
    return median(one / other for one, other in zip(ours, peers, strict=True))


def rate(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Return our rate divided by the peer's rate: the median of the rounds."""
    return cost(peers, ours)


def microseconds(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds * 1e6:.2f} µs"
