"""The timeline in the terminal: a row for each slot, its holders over time, and the waiters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from limiter_cli.demo.groups import Groups
from limiter_cli.demo.record import UNHAPPY, KeyRecord, Outcome, Record, Turn

__all__ = ("Timeline", "axis_step")

_LANES_SHOWN = 8
_LABEL_WIDTH = 28
_TICK_WIDTH = 10
_FULL_QUEUE = 4  # so many waiting at the least fill the height; one alone looks like one


@dataclass(frozen=True, slots=True)
class _Glyphs:
    bar: str
    none: str
    levels: str
    mark: str


_UNICODE = _Glyphs("━", "·", " ▁▂▃▄▅▆▇█", "✕")
_ASCII = _Glyphs("=", ".", " 123456789", "x")


class Timeline:
    """Renders as wide as the console is.

    Args:
        record: what happened.
        keys: those to show, in this order.
        groups: whose letters and colours the calls have.
    """

    def __init__(self, record: Record, keys: Sequence[KeyRecord], groups: Groups) -> None:
        self._keys = keys
        self._groups = groups
        self._seconds = max(record.lasted, 1e-9)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = _ASCII if options.ascii_only else _UNICODE
        longest = max((len(key.key) for key in self._keys), default=0)
        label_width = max(9, min(_LABEL_WIDTH, longest, options.max_width // 3)) + 1
        cells = max(10, options.max_width - label_width)
        yield Text(" " * label_width + _axis(self._seconds, cells), style="dim")
        for key in self._keys:
            rows = _Rows(key, self._groups, self._seconds / cells, cells, glyphs)
            for label, row in rows:
                name = Text(label, no_wrap=True)
                name.truncate(label_width - 1, overflow="ellipsis", pad=True)
                yield Text.assemble(name, " ", row)
        yield _legend(self._groups, glyphs)


class _Rows:
    """The rows of one key."""

    def __init__(
        self, key: KeyRecord, groups: Groups, seconds: float, cells: int, glyphs: _Glyphs
    ) -> None:
        self._key = key
        self._groups = groups
        self._seconds = seconds  # of one cell
        self._cells = cells
        self._glyphs = glyphs

    def __iter__(self) -> Iterator[tuple[str, Text]]:
        lanes = max(1, self._key.peak)
        for lane in range(min(lanes, _LANES_SHOWN)):
            yield (self._key.key if lane == 0 else ""), self._lane(lane)
        if lanes > _LANES_SHOWN:
            yield "", Text(f"and {lanes - _LANES_SHOWN} more slots", style="dim italic")
        if waiting := self._waiting():
            yield "  waiting", waiting
        for outcome in UNHAPPY:
            if marks := self._marks(outcome):
                yield f"  {outcome.value}", marks

    def _lane(self, lane: int) -> Text:
        row = Text(no_wrap=True)
        before: Turn | None = None
        for turn in self._holders(lane):
            if turn is None:
                row.append(self._glyphs.none, style="dim")
            else:
                group = self._groups[turn.planned]
                if turn is before:
                    row.append(self._glyphs.bar, style=group.colour)
                else:
                    row.append(group.letter, style=f"bold reverse {group.colour}")
            before = turn
        return row

    def _holders(self, lane: int) -> list[Turn | None]:
        """Return for each cell the call that held the slot for the greatest part of it."""
        found: list[Turn | None] = [None] * self._cells
        parts = [0.0] * self._cells
        for turn in self._key.turns:
            if turn.began_at is None or lane not in turn.lanes[self._key.key]:
                continue
            begin, end = turn.began_at / self._seconds, (turn.ended_at or 0.0) / self._seconds
            first = min(round(begin), self._cells - 1)
            for cell in range(first, max(first + 1, min(round(end), self._cells))):
                part = min(end, cell + 1) - max(begin, cell)
                if found[cell] is None or part > parts[cell]:
                    found[cell], parts[cell] = turn, part
        return found

    def _waiting(self) -> Text | None:
        """Return the number of calls that waited, as heights."""
        most = [0] * self._cells
        for at, until, count in self._key.waiting_steps(self._seconds / 50):
            for cell in range(self._cell(at), self._cell(until) + 1):
                most[cell] = max(most[cell], count)
        peak = max(most)
        if not peak:
            return None
        levels = self._glyphs.levels
        full = max(peak, _FULL_QUEUE)
        heights = (-(-count * (len(levels) - 1) // full) for count in most)
        row = Text("".join(levels[height] for height in heights).rstrip(), style="grey50")
        return row.append(f" max {peak}", style="dim") if len(row) + 8 < self._cells else row

    def _marks(self, outcome: Outcome) -> Text | None:
        marked = {self._cell(turn.left_at or 0.0) for turn in self._key.ended_as(outcome)}
        if not marked:
            return None
        row = "".join(
            self._glyphs.mark if cell in marked else " " for cell in range(max(marked) + 1)
        )
        return Text(row, style="red")

    def _cell(self, at: float) -> int:
        return min(int(at / self._seconds), self._cells - 1)


def axis_step(seconds: float, ticks: int) -> float:
    """Return a round number of seconds so that at most so many of them fit."""
    step = 10.0**-3
    factors: tuple[float, ...] = (2, 2.5, 2)  # 1, 2, 5, 10
    turn = 0
    while seconds / step > ticks:
        step *= factors[turn % 3]
        turn += 1
    return step


def _axis(seconds: float, cells: int) -> str:
    step = axis_step(seconds, cells // _TICK_WIDTH)
    axis = ""
    number = 0
    while (column := round(number * step / seconds * cells)) <= cells - _TICK_WIDTH // 2:
        axis = axis.ljust(column) + f"{number * step:g}" + (" s" if number == 0 else "")
        number += 1
    return axis[:cells]


def _legend(groups: Groups, glyphs: _Glyphs) -> Text:
    legend = Text("\n")
    legend.append(f"{groups.by or 'function'}: ", style="dim")
    for group in groups.shown:
        legend.append(group.letter, style=f"bold reverse {group.colour}")
        legend.append(f"{glyphs.bar} {group.name}  ", style=group.colour)
    return legend
