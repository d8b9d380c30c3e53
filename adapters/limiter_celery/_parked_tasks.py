"""The tasks that this worker parked: for those whose waiting ends before their turn comes.

A ticket waits in the store with no process behind it. What can end it early (a revoke, `expires`,
the limit's `timeout`) is seen to by the worker that parked it; if that worker is gone, it is seen
when the task's turn comes.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from limiter_celery._revocations import Stamps, have_in_common, stamps_of
from limiter_core.errors import StoreError
from limiter_core.jobs import Job, Waiting
from limiter_core.requests import Mode, Queued, Request
from limiter_core.store import SyncStore

_MOST = 50_000
"""Tasks that are remembered; of more, the oldest are forgotten."""

_GRACE = 0.25
"""Seconds after a task's `expires` in which a worker may still come for it."""

_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class _Parked:
    task_id: str
    request: Request
    payload: bytes
    stamps: Stamps


class WaitingRoom:
    """Ends the waiting of tasks early.

    Args:
        face: where the tickets are.
        schedule: has something done after so many seconds.
        end: called with the ticket, the payload and the reason of each that was taken out.
    """

    def __init__(
        self,
        face: SyncStore,
        schedule: Callable[[Callable[[], object], float], object],
        end: Callable[[str, bytes, str], object],
    ) -> None:
        self._face = face
        self._schedule = schedule
        self._end = end
        self._lock = threading.Lock()
        self._parked: collections.OrderedDict[str, _Parked] = collections.OrderedDict()
        self._of_task: dict[str, set[str]] = {}

    def enter(self, request: Any, job: Job, waiting: Waiting) -> None:
        """Note a task that was just parked."""
        stamps = stamps_of(request.stamps)
        parked = _Parked(request.id, waiting.request, job.payload, stamps)
        with self._lock:
            self._parked[job.ticket] = parked
            self._of_task.setdefault(request.id, set()).add(job.ticket)
            if len(self._parked) > _MOST:
                self._forget(next(iter(self._parked)))
        if request.expires is not None:
            left = (request.expires - datetime.now(request.expires.tzinfo)).total_seconds()
            self._end_at(job.ticket, parked, max(left, 0.0) + _GRACE, "expired")
        if waiting.patience is not None:
            reason = f"timed out waiting for {waiting.key!r}"
            self._end_at(job.ticket, parked, max(waiting.patience, 0.0), reason)

    def forget(self, ticket: str) -> None:
        """A ticket's waiting is over."""
        with self._lock:
            self._forget(ticket)

    def revoke(self, task_ids: set[str]) -> None:
        """End the waiting of these tasks, whichever attempt it is that waits."""
        with self._lock:
            tickets = [each for task in task_ids for each in self._of_task.get(task, ())]
            found = [(ticket, self._parked[ticket]) for ticket in tickets]
        for ticket, parked in found:
            self._take_out(ticket, parked, "revoked")

    def revoke_by_stamps(self, stamps: Stamps) -> None:
        """End the waiting of the tasks that have one of these stamps."""
        with self._lock:
            found = list(self._parked.items())
        for ticket, parked in found:
            if have_in_common(parked.stamps, stamps):
                self._take_out(ticket, parked, "revoked")

    def _end_at(self, ticket: str, parked: _Parked, after: float, reason: str) -> None:
        self._schedule(lambda: self._take_out(ticket, parked, reason), after)

    def _take_out(self, ticket: str, parked: _Parked, reason: str) -> None:
        with self._lock:
            # A task may be sent again under its id: what ends is the waiting that was meant.
            if self._parked.get(ticket) is not parked:
                return
        keys = [demand.key for demand in parked.request.demands]
        try:
            # Only one that waits. Who comes for its slot sees for himself that it has ended.
            where = self._face.acquire(parked.request._replace(mode=Mode.LOOK))
            taken_out = isinstance(where, Queued) and self._face.release(ticket, keys)
        except StoreError:
            self._end_at(ticket, parked, _PAUSE, reason)
            return
        self.forget(ticket)
        if taken_out:
            self._end(ticket, parked.payload, reason)

    def _forget(self, ticket: str) -> None:
        parked = self._parked.pop(ticket, None)
        if parked is not None:
            tickets = self._of_task[parked.task_id]
            tickets.discard(ticket)
            if not tickets:
                del self._of_task[parked.task_id]
