"""The tasks that this worker parked, for those whose waiting ends before their turn comes.

A ticket waits in the store, and no process with it. What can end it early (a revoke, `expires`, the
limit's `timeout`) is noticed by the worker that parked the task; if that worker is gone, it is
noticed when the task's turn comes.

The task is evicted from the line: so the store keeps that it is not to run, with its message, and
has the workers notified until one of them has reported it. Where this process is killed, another
one reports it.
"""

from __future__ import annotations

import collections
import threading
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from limiter_celery._refusal_reasons import Reason, RefusalReasons
from limiter_celery._revocations import Stamps, have_in_common, stamps_of
from limiter_celery._start_reservations import StartReservations
from limiter_core.errors import StoreError
from limiter_core.jobs import Job, Waiting
from limiter_core.requests import Held, Mode, Queued, Request
from limiter_core.store import SyncStore

_MOST = 50_000
"""Tasks that are remembered; of more, the oldest are forgotten."""

_GRACE = 0.25
"""Seconds after a task's `expires` in which a worker may still claim its slot."""

_RETRY_AFTER = 1.0
"""Seconds between two attempts."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Parked:
    task_id: str
    request: Request
    stamps: Stamps


class ParkedTasks:
    """Takes tasks out of the line.

    Args:
        store: where the tickets are.
        starts: which deliveries are about to start.
        reasons: where it is noted why a task is not to run.
        call_later: calls a function after so many seconds.
    """

    def __init__(
        self,
        store: SyncStore,
        starts: StartReservations,
        reasons: RefusalReasons,
        call_later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self._store = store
        self._starts = starts
        self._reasons = reasons
        self._call_later = call_later
        self._lock = threading.Lock()
        self._parked: collections.OrderedDict[str, _Parked] = collections.OrderedDict()
        self._tickets_of: dict[str, set[str]] = {}

    def add(self, request: Any, job: Job, waiting: Waiting) -> None:
        """Remember a task that was just parked."""
        stamps = stamps_of(request.stamps)
        parked = _Parked(request.id, waiting.request, stamps)
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
            self._remove_later(job.ticket, parked, patience, "timeout")

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

    def _remove_later(self, ticket: str, parked: _Parked, seconds: float, reason: Reason) -> None:
        reference = weakref.ref(parked)  # its message is not kept until then if it has begun

        def remove() -> None:
            still_parked = reference()
            if still_parked is not None:
                self._remove(ticket, still_parked, reason)

        self._call_later(seconds, remove)

    def _remove(self, ticket: str, parked: _Parked, reason: Reason) -> None:
        with self._lock:
            # A task may be sent again under its id: only the waiting that was meant ends.
            if self._parked.get(ticket) is not parked:
                return
        try:
            has_left = self._end(ticket, parked.request, reason)
        except StoreError:
            has_left = False
        if has_left:
            self.forget(ticket)
        else:
            self._remove_later(ticket, parked, _RETRY_AFTER, reason)

    def _end(self, ticket: str, request: Request, reason: Reason) -> bool:
        """End the waiting of a task; False if a delivery may be about to start.

        Only while it waits. A delivery that claims its slot checks by itself that it may run.

        Raises:
            StoreError: the store could not be used; perhaps the waiting has ended.
        """
        look = request._replace(mode=Mode.LOOK)
        if not isinstance(self._store.acquire(look), Queued):
            return True
        ending = uuid.uuid4().hex
        # It may be granted now, and be delivered within a worker, which claims its slot late.
        if not self._starts.reserve(ticket, ending):
            return False
        try:
            self._reasons.note(ticket, reason)
            keys = [demand.key for demand in request.demands]
            if not self._store.evict_waiter(ticket, keys):
                if isinstance(self._store.acquire(look), Held):  # a delivery was faster: it runs
                    self._reasons.forget(ticket, reason)
        finally:
            with suppress(StoreError):  # it ends by itself
                self._starts.release(ticket, ending)
        return True

    def _forget(self, ticket: str) -> None:
        parked = self._parked.pop(ticket, None)
        if parked is not None:
            tickets = self._tickets_of[parked.task_id]
            tickets.discard(ticket)
            if not tickets:
                del self._tickets_of[parked.task_id]
