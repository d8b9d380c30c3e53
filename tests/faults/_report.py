"""The table of what trials measured, below the result of the tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ._trial import Figures

_HEAD = (
    "scenario", "faults", "seconds", "bodies", "overlap used of allowed", "over after",
    "lost", "before/s", "after/s", "waited", "full in", "errors",
)  # fmt: skip


def table(figures: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, a scenario in each."""
    rows = [_HEAD, *figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def row_of(figures: Figures) -> tuple[str, ...]:
    """Return the cells of a scenario."""
    overlap = figures.overlap
    excuses, lease = overlap.allowed
    if excuses:
        used = f"{overlap.longest:.3f} of {lease:g} s, in {overlap.faults} of {excuses}"
    else:
        used = "none, none allowed"
    errors = ", ".join(f"{count} {name}" for name, count in sorted(figures.errors.items()))
    return (
        figures.name.removeprefix("test_"),
        str(figures.faults),
        f"{figures.seconds:.1f}",
        str(figures.bodies),
        used,
        f"{overlap.reach:.3f} s" if excuses else "-",
        str(figures.lost),
        f"{figures.before:.0f}",
        f"{figures.after:.0f}",
        f"{figures.longest_wait:.2f} s",
        f"{figures.full_again:.2f} s",
        errors or "-",
    )
