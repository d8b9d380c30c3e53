"""A table of texts, and what its cells show of a key.

Texts of a store are shown as `Text`, never as markup, and without control characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import DataTable

from limiter_cli.output import printable
from limiter_core.durations import duration_text
from limiter_core.monitoring import KeyStatus
from limiter_core.monitoring.history import BUCKETS, Point

__all__ = ("COLUMNS", "Table", "cells", "load_bar", "spark_line")

COLUMNS = ("key", "use", "line", "load", "oldest", "/min", "15 min", "name", "scope", "jobs of")

_BAR = 8
_HEIGHTS = "▁▂▃▄▅▆▇█"
_BUCKETS_PER_MARK = 6
"""A minute for each mark of a spark line."""


class Table(DataTable[Text]):
    """A table whose rows change in place; the cursor stays on its row."""

    def show(self, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Show rows, each with an id."""
        on = self.cursor_row
        at = self.current()
        self.clear()
        for row_id, cells in rows:
            self.add_row(*(Text(printable(cell)) for cell in cells), key=row_id)
        ids = [row_id for row_id, _ in rows]
        if ids:
            self.move_cursor(row=ids.index(at) if at in ids else min(on, len(ids) - 1))

    def current(self) -> str | None:
        """Return the id of the row with the cursor."""
        if not self.row_count:
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value


def cells(status: KeyStatus, history: Sequence[Point | None]) -> Sequence[str]:
    """Return the cells of a key, in the order of `COLUMNS`."""
    limit = "?" if status.limit is None else str(status.limit)
    return (
        status.key + (" (paused)" if status.paused else ""),
        f"{status.in_use}/{limit}",
        str(status.waiting),
        load_bar(status),
        "" if status.oldest_wait is None else duration_text(status.oldest_wait),
        str(status.hand_offs),
        spark_line(history),
        status.name,
        status.scope or "",
        ", ".join(status.adapters),
    )


def load_bar(status: KeyStatus) -> str:
    """Return a bar: how much of the limit is in use."""
    if not status.limit:
        return "█" * _BAR if status.in_use else "░" * _BAR
    full = min(_BAR, -(-_BAR * status.in_use // status.limit))
    return "█" * full + "░" * (_BAR - full)


def spark_line(history: Sequence[Point | None]) -> str:
    """Return the slots in use and the tickets in line of each of the last minutes, as heights."""
    minutes = [
        max((each.in_use + each.waiting for each in some if each is not None), default=None)
        for some in (
            history[start : start + _BUCKETS_PER_MARK]
            for start in range(0, BUCKETS, _BUCKETS_PER_MARK)
        )
    ]
    highest = max((each for each in minutes if each), default=1)
    return "".join(
        " " if each is None else _HEIGHTS[each * (len(_HEIGHTS) - 1) // highest] for each in minutes
    )
