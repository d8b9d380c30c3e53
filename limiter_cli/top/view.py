"""The view: a table of keys that the collector saw, and a screen for one of them.

Texts of a store are shown as `Text`, never as markup, and without control characters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Label, Static

from limiter_cli.output import printable
from limiter_core import Limiter, LimiterError
from limiter_core.monitoring import SORTS, Collector, KeyStatus, Query, select
from limiter_core.requests import KeySnapshot
from limiter_core.store import Store

__all__ = ("KeyScreen", "QuestionScreen", "TopApp")

SHOWN = 500
"""Keys in the table, at the most."""


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


class QuestionScreen(ModalScreen[str | None]):
    """Asks for a text, or for a confirmation: the text is then `yes`."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "cancel", "Cancel")]
    CSS = "QuestionScreen { align: center middle; } Vertical { height: auto; max-width: 60; }"

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical():
            yield Label(Text(printable(self._question)))
            yield Input()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return the answer."""
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        """Return nothing."""
        self.dismiss(None)


class KeyScreen(Screen[None]):
    """One key: its holders, and the line in order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "app.pop_screen", "Back"),
        ("p", "pause", "Pause"),
        ("r", "resume", "Resume"),
        ("s", "set_limit", "Set"),
        ("e", "evict", "Evict"),
    ]

    def __init__(self, collector: Collector, limiter: Limiter, key: str) -> None:
        super().__init__()
        self._collector = collector
        self._limiter = limiter
        self._key = key

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="head")
        yield Table(cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to watch the key."""
        table = self.query_one(Table)
        for name in ("what", "label", "since", "id"):
            table.add_column(name)
        self._watch()

    @work
    async def _watch(self) -> None:
        with self._collector.watching(self._key):
            while True:
                try:
                    self._show(await self._collector.inspect(self._key))
                except LimiterError as error:
                    self.query_one("#head", Static).update(Text(printable(str(error))))
                await self._collector.next_round()

    def _show(self, found: KeySnapshot) -> None:
        state = " paused" if found.paused else ""
        head = f"{found.key}  {found.in_use} of {found.limit}, {found.waiting} waiting{state}"
        self.query_one("#head", Static).update(Text(printable(head)))
        rows = [
            (f"h{each.id}", ("holder", each.label, f"{each.held_for:.0f} s", each.id))
            for each in found.holders
        ] + [
            (f"w{each.id}", (f"{place}. in line", each.label, f"{each.waiting_for:.0f} s", each.id))
            for place, each in enumerate(found.waiters, start=1)
        ]
        self.query_one(Table).show(rows)

    def action_pause(self) -> None:
        """Ask, and pause the key."""
        self._after_asking(
            f"Admit no call to {self._key} until it is resumed? Type yes:",
            lambda: self._limiter.pause(self._key),
        )

    def action_resume(self) -> None:
        """Resume the key."""
        self._do(self._limiter.resume(self._key))

    def action_set_limit(self) -> None:
        """Ask for a limit, and set it."""

        def answered(text: str | None) -> None:
            if text and text.isdecimal():
                self._do(self._limiter.set_limit(self._key, int(text)))
            elif text:
                self.notify(f"a limit is a number, got {printable(text)}", markup=False)

        app: Any = self.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        app.push_screen(QuestionScreen(f"New limit of {self._key}:"), answered)

    def action_evict(self) -> None:
        """Ask, and evict the holder or the waiter with the cursor."""
        row = self.query_one(Table).current()
        if row is None:
            return

        member = row[1:]
        if row[0] == "h":
            self._after_asking(
                f"Evict the holder {member}? Type yes:", lambda: self._limiter.evict(member)
            )
        else:
            self._after_asking(
                f"Evict the waiter {member}? Type yes:",
                lambda: self._limiter.evict_waiter(member, self._key),
            )

    def _after_asking(self, question: str, change: Callable[[], Awaitable[object]]) -> None:
        def answered(text: str | None) -> None:
            if text == "yes":
                self._do(change())

        app: Any = self.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        app.push_screen(QuestionScreen(question), answered)

    @work
    async def _do(self, change: Awaitable[object]) -> None:
        try:
            await change
            self._show(await self._collector.inspect(self._key))
        except LimiterError as error:
            self.notify(printable(str(error)), severity="error", markup=False)


class TopApp(App[None]):
    """The table of keys.

    Args:
        store: a store or its URL.
    """

    TITLE = "limiter top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("o", "sort", "Order"),
        ("i", "reverse", "Invert"),
        ("slash", "filter", "Filter"),
    ]

    def __init__(self, store: str | Store) -> None:
        super().__init__()
        self._limiter = Limiter(store)
        self.collector = Collector(store)
        self.selection = Query(size=SHOWN)

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="state")
        yield Table(cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        table = self.query_one(Table)
        for name in ("key", "use", "line", "oldest", "/min", "name", "scope", "jobs of"):
            table.add_column(name)
        self.run_worker(self.collector.run())
        self._watch()

    async def on_unmount(self) -> None:
        """Close the limiter."""
        await self._limiter.aclose()

    @work
    async def _watch(self) -> None:
        with self.collector.watching():
            while True:
                await self.collector.next_round()
                self.show_keys()

    def show_keys(self) -> None:
        """Show the keys that the collector saw last."""
        page = select(self.collector.statuses(), self.selection)
        health = self.collector.health
        order = self.selection.sort.value + (" (inverted)" if self.selection.reverse else "")
        state = f"{page.total} keys by {order}"
        if self.selection.search:
            state += f", with {self.selection.search!r}"
        if health.error:
            state = f"the store is away: {health.error}"
        main = self.screen_stack[0]
        main.query_one("#state", Static).update(Text(printable(state)))
        main.query_one(Table).show([(each.key, _cells(each)) for each in page.keys])

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a key."""
        if len(self.screen_stack) == 1 and event.row_key.value is not None:
            self.push_screen(KeyScreen(self.collector, self._limiter, event.row_key.value))

    def _select(self, query: Query) -> None:
        self.selection = query
        self.show_keys()

    def action_sort(self) -> None:
        """Order by the next column."""
        following = SORTS[(SORTS.index(self.selection.sort) + 1) % len(SORTS)]
        self._select(replace(self.selection, sort=following))

    def action_reverse(self) -> None:
        """Invert the order."""
        self._select(replace(self.selection, reverse=not self.selection.reverse))

    def action_filter(self) -> None:
        """Ask for a text, `name=`, `scope=` or `adapter=`."""

        def answered(text: str | None) -> None:
            if text is None:
                return
            field, found, value = text.partition("=")
            if not found:
                field = ""
            match field:
                case "name":
                    self._select(replace(self.selection, name=value))
                case "scope":
                    self._select(replace(self.selection, scope=value))
                case "adapter":
                    self._select(replace(self.selection, adapter=value))
                case _:
                    every = replace(self.selection, name=None, scope=None, adapter=None)
                    self._select(replace(every, search=text))

        question = "Text in keys and names, or name=, scope=, adapter=; empty for all:"
        self.push_screen(QuestionScreen(question), answered)


def _cells(status: KeyStatus) -> Sequence[str]:
    limit = "?" if status.limit is None else str(status.limit)
    return (
        status.key + (" (paused)" if status.paused else ""),
        f"{status.in_use}/{limit}",
        str(status.waiting),
        "" if status.oldest_wait is None else f"{status.oldest_wait:.0f} s",
        str(status.hand_offs),
        status.name,
        status.scope or "",
        ", ".join(status.adapters),
    )
