"""The view: a table of the keys that the collector saw."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.widgets import DataTable, Footer, Static

from limiter_cli.output import printable
from limiter_cli.top.key_screen import KeyScreen, QuestionScreen
from limiter_cli.top.table import COLUMNS, Table, cells
from limiter_core import Limiter
from limiter_core.monitoring import SORTS, Collector, Query, select
from limiter_core.store import Store

__all__ = ("TopApp",)

_ENDING = ("SIGTERM", "SIGHUP", "SIGQUIT")
"""Signals by name, as not every system has all. Textual itself looks after SIGINT."""

SHOWN = 500
"""Keys of a page of the table."""


class TopApp(App[int]):
    """The table of keys. Its result is the number of the signal that ended it, if one did.

    Args:
        store: a store or its URL.
        by: the operator's name, for the log of changes; None: host and process.
    """

    TITLE = "limiter top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("o", "sort", "Order"),
        ("i", "reverse", "Invert"),
        ("slash", "filter", "Filter"),
        ("right_square_bracket", "page(1)", "Next page"),
        ("left_square_bracket", "page(-1)", "Page before"),
    ]

    def __init__(self, store: str | Store, *, by: str | None = None) -> None:
        super().__init__()
        self._by = by
        self._limiter = Limiter(store)
        self.collector = Collector(store)
        self.selection = Query(size=SHOWN)

    async def run_until_signalled(self) -> int | None:
        """Run; a signal that asks for an end is obeyed when the terminal is as it was before."""
        loop = asyncio.get_running_loop()
        handled = [
            number
            for name in _ENDING
            if (number := getattr(signal, name, None)) is not None
            and signal.getsignal(number) is signal.SIG_DFL
        ]

        def end(by: int) -> None:
            for number in handled:  # the next one ends the process at once
                loop.remove_signal_handler(number)
            self.exit(by)

        with suppress(NotImplementedError):  # Windows
            for number in handled:
                loop.add_signal_handler(number, end, number)
        return await self.run_async()

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="state")
        yield Table(cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self._main = self.screen  # an app that closes has no screens any more
        table = self.query_one(Table)
        for name in COLUMNS:
            table.add_column(name)
        self.run_worker(self.collector.run())
        self._watch()

    async def on_unmount(self) -> None:
        """Close the limiter."""
        await self._limiter.aclose()

    @work
    async def _watch(self) -> None:
        # An app that closes removes its widgets before it cancels this.
        with self.collector.watching(), suppress(NoMatches):
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
        elif page.pages > 1:
            state += f", page {page.page} of {page.pages}"
        main = self._main
        main.query_one("#state", Static).update(Text(printable(state)))
        main.query_one(Table).show(
            [(each.key, cells(each, self.collector.history(each.key))) for each in page.keys]
        )

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a key."""
        if len(self.screen_stack) == 1 and event.row_key.value is not None:
            key = event.row_key.value
            self.push_screen(KeyScreen(self.collector, self._limiter, key, by=self._by))

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

    def action_page(self, step: int) -> None:
        """Show the next page, or the one before."""
        pages = select(self.collector.statuses(), self.selection).pages
        page = min(max(1, self.selection.page + step), pages)
        self._select(replace(self.selection, page=page))

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
