"""The screens of one key, and of a question about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Input, Label, Static

from limiter_cli.output import printable
from limiter_cli.tables import slots_of
from limiter_cli.top.table import Table, spark_line
from limiter_core import Limiter, LimiterError
from limiter_core.durations import duration_text
from limiter_core.monitoring import Collector
from limiter_core.requests import KeySnapshot

__all__ = ("KeyScreen", "QuestionScreen")


_MOST_DIGITS = 100
"""Digits of a limit: far more than any store takes, and less than Python refuses to read."""


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

    def __init__(
        self, collector: Collector, limiter: Limiter, key: str, *, by: str | None = None
    ) -> None:
        super().__init__()
        self._by = by
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
        # A screen that closes removes its widgets before it cancels this.
        with self._collector.watching(self._key), suppress(NoMatches):
            while True:
                try:
                    self._show(await self._collector.inspect(self._key))
                except LimiterError as error:
                    self.query_one("#head", Static).update(Text(printable(str(error))))
                await self._collector.next_round()

    def _show(self, found: KeySnapshot) -> None:
        state = " paused" if found.paused else ""
        head = f"{found.key}  {slots_of(found)}, {found.waiting} waiting{state}"
        head += f"  {spark_line(self._collector.history(self._key))}"
        self.query_one("#head", Static).update(Text(printable(head)))
        rows = [
            (f"h{each.id}", ("holder", each.label, duration_text(each.held_for), each.id))
            for each in found.holders
        ] + [
            (
                f"w{each.id}",
                (f"{place}. in line", each.label, duration_text(each.waiting_for), each.id),
            )
            for place, each in enumerate(found.waiters, start=1)
        ]
        rows += [
            (
                f"w{each.id}",
                (
                    f"no worker of {queue.name}",
                    each.label,
                    duration_text(each.waiting_for),
                    each.id,
                ),
            )
            for queue in found.dormant
            for each in queue.waiters
        ]
        self.query_one(Table).show(rows)

    def action_pause(self) -> None:
        """Ask, and pause the key."""
        self._after_asking(
            f"Admit no call to {self._key} until it is resumed?",
            lambda reason: self._limiter.pause(self._key, reason=reason, by=self._by),
        )

    def action_resume(self) -> None:
        """Resume the key."""
        self._do(self._limiter.resume(self._key, by=self._by))

    def action_set_limit(self) -> None:
        """Ask for a limit, and set it."""

        def answered(text: str | None) -> None:
            number, _, reason = (text or "").partition(" ")
            if number.isdecimal() and len(number) < _MOST_DIGITS:
                change = self._limiter.set_limit(
                    self._key, int(number), reason=reason or None, by=self._by
                )
                self._do(change)
            elif text:
                self.notify(f"a limit is a number, got {printable(text)}", markup=False)

        app: Any = self.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        app.push_screen(QuestionScreen(f"New limit of {self._key}, and why:"), answered)

    def action_evict(self) -> None:
        """Ask, and evict the holder or the waiter with the cursor."""
        row = self.query_one(Table).current()
        if row is None:
            return

        member = row[1:]
        if row[0] == "h":
            self._after_asking(
                f"Evict the holder {member}?",
                lambda reason: self._limiter.evict(member, self._key, reason=reason, by=self._by),
            )
        else:
            self._after_asking(
                f"Evict the waiter {member}?",
                lambda reason: self._limiter.evict_waiter(
                    member, self._key, reason=reason, by=self._by
                ),
            )

    def _after_asking(
        self, question: str, change: Callable[[str | None], Awaitable[object]]
    ) -> None:
        """Ask for a confirmation, and for the reason, for the log."""

        def answered(text: str | None) -> None:
            word, _, reason = (text or "").partition(" ")
            if word == "yes":
                self._do(change(reason.strip() or None))

        app: Any = self.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        app.push_screen(QuestionScreen(f"{question} Type yes, and why:"), answered)

    @work
    async def _do(self, change: Awaitable[object]) -> None:
        try:
            await change
            with suppress(NoMatches):  # the screen may have been closed meanwhile
                self._show(await self._collector.inspect(self._key))
        except LimiterError as error:
            self.notify(printable(str(error)), severity="error", markup=False)
