"""The tasks that this worker parked, for those whose waiting ends before their turn comes.

A ticket waits in the store, and no process with it. What can end it early (a revoke, `expires`, the
limit's `timeout`) is noticed by the worker that parked the task; if that worker is gone, it is
noticed when the task's turn comes.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._revocations import Stamps, have_in_common, stamps_of
from limiter_core.errors import StoreError
from limiter_core.jobs import Job, SyncJobGate, Waiting, timeout_error
from limiter_core.requests import Answer, Mode, Queued, Refusal, Refused, Request
from limiter_core.store import SyncStore

_MOST = 50_000
"""Tasks that are remembered; of more, the oldest are forgotten."""

_GRACE = 0.25
"""Seconds after a task's `expires` in which a worker may still claim its slot."""

_RETRY_AFTER = 1.0
"""Seconds between two attempts while the store cannot be used."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Parked:
    task_id: str
    task: str
    request: Request
    payload: bytes
    stamps: Stamps


class ParkedTasks:
    """Takes tasks out of the line.

    Args:
        store: where the tickets are.
        gate: what drops a ticket.
        markers: of the tasks that have finished.
        call_later: calls a function after so many seconds.
        on_removed: called with the ticket, the payload and the reason of each that was taken out.
    """

    def __init__(
        self,
        store: SyncStore,
        gate: SyncJobGate,
        markers: CompletionMarkers,
        call_later: Callable[[float, Callable[[], object]], object],
        on_removed: Callable[[str, bytes, str], object],
    ) -> None:
        self._store = store
        self._gate = gate
        self._markers = markers
        self._call_later = call_later
        self._on_removed = on_removed
        self._lock = threading.Lock()
        self._parked: collections.OrderedDict[str, _Parked] = collections.OrderedDict()
        self._tickets_of: dict[str, set[str]] = {}

    def add(self, request: Any, job: Job, waiting: Waiting) -> None:
        """Remember a task that was just parked."""
        stamps = stamps_of(request.stamps)
        parked = _Parked(request.id, request.name, waiting.request, job.payload, stamps)
        with self._lock:
            self._parked[job.ticket] = parked
            self._tickets_of.setdefault(request.id, set()).add(job.ticket)
            if len(self._parked) > _MOST:
                self._forget(next(iter(self._parked)))
        if request.expires is not None:
            left = (request.expires - datetime.now(request.expires.tzinfo)).total_seconds()
            self._remove_later(job.ticket, parked, max(left, 0.0) + _GRACE, "expired")
        if waiting.patience is not None:
            patience = max(waiting.patience, 0.0)
            self._remove_later(job.ticket, parked, patience, timeout_error(waiting))

    def forget(self, ticket: str) -> None:
        """Forget a task: its waiting is over."""
        with self._lock:
            self._forget(ticket)

    def revoke(self, task_ids: set[str]) -> None:
        """End the waiting of these tasks, whichever attempt it is that waits."""
        with self._lock:
            tickets = [each for task in task_ids for each in self._tickets_of.get(task, ())]
            found = [(ticket, self._parked[ticket]) for ticket in tickets]
        for ticket, parked in found:
            self._remove(ticket, parked, "revoked")

    def revoke_by_stamps(self, stamps: Stamps) -> None:
        """End the waiting of the tasks that have one of these stamps."""
        with self._lock:
            found = list(self._parked.items())
        for ticket, parked in found:
            if have_in_common(parked.stamps, stamps):
                self._remove(ticket, parked, "revoked")

    def _remove_later(
        self,
        ticket: str,
        parked: _Parked,
        seconds: float,
        reason: str | Exception,
        *,
        was_asked: bool = False,
    ) -> None:
        reference = weakref.ref(parked)  # its message is not kept until then if it has begun

        def remove() -> None:
            still_parked = reference()
            if still_parked is not None:
                self._remove(ticket, still_parked, reason, was_asked=was_asked)

        self._call_later(seconds, remove)

    def _remove(
        self, ticket: str, parked: _Parked, reason: str | Exception, *, was_asked: bool = False
    ) -> None:
        with self._lock:
            # A task may be sent again under its id: only the waiting that was meant ends.
            if self._parked.get(ticket) is not parked:
                return
        keys = tuple(demand.key for demand in parked.request.demands)
        error = reason if isinstance(reason, Exception) else None
        is_removed = False
        try:
            # Only while it waits. A delivery that claims its slot checks by itself that it may run.
            where: Answer | None = self._look(parked)
            if isinstance(where, Queued):
                was_asked = True
                is_removed = self._gate.drop(ticket, keys, error=error, function=parked.task)
                where = None if is_removed else self._look(parked)
            if was_asked and not is_removed and _is_unknown(where):
                # It is gone, and the reply that says so may have been lost: no other worker knows
                # of it then. If it has begun meanwhile, it has a marker.
                is_removed = self._markers.are_kept and self._markers.age(ticket) is None
        except StoreError:
            self._remove_later(ticket, parked, _RETRY_AFTER, reason, was_asked=was_asked)
            return
        self.forget(ticket)
        if is_removed:
            self._on_removed(ticket, parked.payload, str(reason))

    def _look(self, parked: _Parked) -> Answer:
        return self._store.acquire(parked.request._replace(mode=Mode.LOOK))

    def _forget(self, ticket: str) -> None:
        parked = self._parked.pop(ticket, None)
        if parked is not None:
            tickets = self._tickets_of[parked.task_id]
            tickets.discard(ticket)
            if not tickets:
                del self._tickets_of[parked.task_id]


def _is_unknown(answer: Answer | None) -> bool:
    return isinstance(answer, Refused) and answer.reason is Refusal.UNKNOWN
