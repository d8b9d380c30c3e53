"""The summary: per key the peak beside its limit, the waits, and the refused calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from limiter_cli.demo.groups import Groups, plain
from limiter_cli.demo.plan import Planned
from limiter_cli.demo.record import UNHAPPY, KeyRecord, Outcome, Record, percentile

__all__ = ("COLUMNS", "Story", "exceeded", "notes", "overall", "row", "seconds_text", "summary")

COLUMNS = (
    "key",
    "peak slots",
    "calls",
    "wait p50",
    "wait p95",
    "wait max",
    "refused",
    "timed out",
    "superseded",
    "cut short",
)
"""The headings of `row`."""

_SHOWN_IF_ANY = ("timed out", "cut short")
_NONE = "-"
_EXCESSES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Story:
    """All results of a replay.

    Attributes:
        record: what happened.
        calls: the plan.
        limits: the limits, by the names of their functions.
        groups: how calls are distinguished.
        processes: how many made the calls.
    """

    record: Record
    calls: Sequence[Planned]
    limits: Mapping[str, object]
    groups: Groups
    processes: int = 1


def row(key: KeyRecord) -> tuple[str, ...]:
    """Return the summary of one key, a text for each of `COLUMNS`."""
    waits = key.waits()
    return (
        key.key,
        f"{key.peak} of {limit_text(key)}",
        str(len(key.turns)),
        *(seconds_text(percentile(waits, p)) if waits else _NONE for p in (50, 95, 100)),
        *(str(len(key.ended_as(outcome)) or _NONE) for outcome in UNHAPPY),
    )


def summary(record: Record, keys: Sequence[KeyRecord]) -> RenderableType:
    """Return the table of these keys."""
    over = {excess.key for excess in record.excesses}
    rows = [row(key) for key in keys]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    shown: list[int] = []
    for number, heading in enumerate(COLUMNS):
        if heading in _SHOWN_IF_ANY and all(cells[number] == _NONE for cells in rows):
            continue
        shown.append(number)
        table.add_column(
            # The key is what gives way on a narrow terminal: it can be folded, numbers can not.
            heading.replace("superseded", "super-\nseded").replace(" ", "\n"),
            justify="right" if number else "left",
            no_wrap=number > 0,
            overflow="fold",
            vertical="bottom",
        )
    for key, cells in zip(keys, rows, strict=True):
        style = "bold red" if key.key in over else None
        table.add_row(*(Text(cells[number]) for number in shown), style=style)
    return table


def overall(record: Record) -> str:
    """Return one line about all calls."""
    counts = ", ".join(
        f"{count} {outcome.value}" for outcome in Outcome if (count := record.count(outcome))
    )
    return f"{_calls(len(record.turns))} in {seconds_text(record.lasted)}: {counts}"


def notes(story: Story) -> Iterator[str]:
    """Yield what a reader should know besides, a sentence each."""
    if story.processes > 1:
        yield f"{story.processes} processes made the calls, in turn."
    called = {planned.call.function for planned in story.calls}
    if unlimited := [planned.call.function for planned in story.calls if not planned.claims]:
        names = _listed(sorted(set(unlimited)))
        yield f"No limit declared for: {names} ({_calls(len(unlimited))}, which ran at once)."
    if unused := [function for function in story.limits if function not in called]:
        yield f"Never called: {_listed(unused)}."
    if any(len(planned.claims) > 1 for planned in story.calls):
        yield "A call under several limits waits once, and is counted on each of its keys."


def exceeded(record: Record) -> Iterator[str]:
    """Yield a line for each time a limit was exceeded, as far as a reader wants to know."""
    for excess in record.excesses[:_EXCESSES_SHOWN]:
        call = excess.turn.planned
        yield (
            f"{excess.key}: {excess.in_use} slots in use at "
            f"{seconds_text(excess.turn.began_at or 0.0)}, the limit is {excess.limit} "
            f"({plain(call.call.function)}, line {call.line} of the log)"
        )
    if len(record.excesses) > _EXCESSES_SHOWN:
        yield f"... and {len(record.excesses) - _EXCESSES_SHOWN} times more"


def limit_text(key: KeyRecord) -> str:
    """Return a key's limit; from the lowest to the highest, where its calls disagree."""
    low, high = min(key.limits), max(key.limits)
    return str(low) if low == high else f"{low}-{high}"


def seconds_text(seconds: float) -> str:
    """Return a duration with three digits or so."""
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(plain, names))
