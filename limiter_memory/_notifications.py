"""Answers that are due to listeners and gates; and those kept for waiters that ask again."""

from __future__ import annotations

from collections import deque

from limiter_core.requests import Answer, Granted, Loss, Notice, Refused, Replaced, Request
from limiter_memory._key_table import KeyTable
from limiter_memory._policies import Policies

REMEMBER = 60_000_000
"""Microseconds for which the refusal of a ticket is kept for a waiter that asks again."""


class Notifications:
    """The key table, the policies, and what is to be said of their changes."""

    def __init__(self) -> None:
        self.table = KeyTable()
        self.policies = Policies()
        self.calls: list[tuple[Request, Answer | Loss | None]] = []
        """Effects: requests whose listener gets an answer or a loss, or (None) has to ask again."""
        self.notices: list[Notice] = []
        """Effects: what became of durable tickets."""
        self._ended: dict[str, Refused | Replaced] = {}
        self._ended_order: deque[tuple[int, str]] = deque()
        self._last_token = 0
        self.deferred: list[tuple[str, str, str]] = []
        """Effects: ticket, key and gate of jobs that did not claim the slots they were offered."""

    def notify(self, request: Request, answer: Granted | Refused | Replaced) -> None:
        """Notify the waiter of a new answer: the process of a job, or a listener."""
        if request.payload is not None:
            name = "" if request.presence is None else request.presence.name
            self.notices.append(Notice(request.id, request.payload, answer, name))
        if request.listener is not None:
            self.calls.append((request, answer))

    def _remember(self, request: Request, answer: Refused | Replaced, now: int) -> None:
        self._ended[request.id] = answer
        self._ended_order.append((now + REMEMBER, request.id))
        self.notify(request, answer)

    def settle_ends(self, now: int) -> None:
        """Complete what `_remember` began and its caller did not; for `recover`."""
        noted = {request_id for _, request_id in self._ended_order}
        for request_id, answer in self._ended.items():
            if request_id not in noted:
                self._ended_order.append((now + REMEMBER, request_id))
            holder = self.table.holders.pop(request_id, None)
            ticket = self.table.tickets.pop(request_id, None)
            member = holder or ticket
            if member is not None:
                self.notify(member.request, answer)

    def _forget_ended(self, now: int) -> None:
        while self._ended_order and self._ended_order[0][0] <= now:
            self._ended.pop(self._ended_order.popleft()[1], None)
