"""How the events of one call are sent: each once, in their order, whichever thread finds them.

An outcome and an end can be found by two threads at once: the caller's and that of a store, which
reports a loss. Each is claimed by an atomic `list.pop` before it is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from limiter_core._collected import notify_later
from limiter_core._observers import (
    ObserverSet,
    Registration,
    must_be_sent_later,
    of_process,
    send_now,
)
from limiter_core.events import Event
from limiter_core.tracing import Headers, in_trace_of


class EventSender:
    """Sends the events of a call; `ObservedCall` sets its attributes, as each call pays for it."""

    # A dictionary only for what few calls have: there, of two threads, the same is made by both.
    __slots__ = ("__dict__", "_forks", "_headers", "_late", "_observers", "_pending")

    _observers: ObserverSet
    _headers: Headers | None
    """Those of a job's message: its events are sent in the trace that they have."""
    _forks: int
    """`of_process.forks` when the call was made."""
    _pending: deque[Event] | None
    _late: deque[None] | None
    """As many as there are events that are sent in the background: others follow them there."""

    def _claim(self, token: list[None]) -> bool:
        """Take a token; whether it was there, and the call is not of the parent of a fork."""
        try:
            token.pop()
        except IndexError:
            return False
        return self._forks == of_process.forks

    def _once(self, name: str) -> list[None]:
        """Return a token that most calls do not need; the same one in each thread."""
        token: list[None] = self.__dict__.setdefault(name, [None])
        return token

    def _report(self, event: Event, later: Callable[[Callable[[], object]], object] | None) -> None:
        """Send what a store has reported, now or later, before the end that follows it."""
        self._pending = pending = self.__dict__.setdefault("pending", deque())
        pending.append(event)
        if later is None:
            self._flush()
        else:
            later(self._flush)

    def _flush(self) -> None:
        pending = self._pending
        while pending:
            try:
                event = pending.popleft()
            except IndexError:  # another thread was faster
                return
            self._send(event)

    def _send(self, event: Event) -> None:
        """Send what happens to few calls."""
        observers = self._observers
        self._send_to(observers.registered + observers.rare, event)

    def _send_to(self, observers: Sequence[Registration], event: Event) -> None:
        """Send an event, and never before an earlier one of the same call."""
        if self._late or must_be_sent_later():
            self._late = late = self.__dict__.setdefault("late", deque())
            late.append(None)
            notify_later(partial(self._send_late, late, observers, event))
        else:
            self._send_now(observers, event)

    def _send_late(
        self, late: deque[None], observers: Sequence[Registration], event: Event
    ) -> None:
        try:
            self._send_now(observers, event)
        finally:
            late.pop()

    def _send_now(self, observers: Sequence[Registration], event: Event) -> None:
        if self._headers is None:
            send_now(observers, event)
        else:
            with in_trace_of(self._headers):
                send_now(observers, event)
