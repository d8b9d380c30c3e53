"""The messages that were published again, as a broker delivers them: what is not to be processed.

A task may have other limits by now, or none, and a message may be there only for the end of a task.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from limiter_celery import _celery
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._delivery import ticket_of
from limiter_celery._parked_message import (
    HEADERS,
    KEYS,
    PUBLICATION,
    REFUSAL,
    head_of,
    origin_of,
    parked_before,
)
from limiter_celery._refusals import Refusals
from limiter_celery._request_factory import RequestFactory
from limiter_celery._scheduler import Scheduler
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate

_RETRY_AFTER = 1.0
"""Seconds between two attempts while the store cannot be used."""


@dataclass(kw_only=True, eq=False)
class GrantedMessages:
    """Decides for each message, before Celery makes a request of it."""

    app: Any
    requests: RequestFactory
    markers: CompletionMarkers
    refusals: Refusals
    gate: SyncJobGate
    scheduler: Scheduler

    def is_to_run(self, received: Any) -> bool:
        """Whether what the broker delivered is to be processed; if not, this has been seen to."""
        headers: dict[str, Any] = received.headers or {}
        origin = origin_of(headers)
        if origin is None:
            return True
        message = _celery.as_message(received, self.app)
        head = head_of(message)
        task = head.get("task")
        if task is None or "id" not in head:
            return True  # Celery reports it
        ticket = ticket_of(self.app, origin.queue, head)
        reason = headers.get(REFUSAL)
        if reason is not None and self.requests.can_report(task):
            parked = parked_before(message, origin)
            self.refusals.report_delivered(ticket, parked, str(reason), message)
            return False
        return self.requests.has(task) or self._runs_without_limits(message, ticket, task)

    def _runs_without_limits(self, message: Any, ticket: str, task: str) -> bool:
        """Have a task that has no limits by now leave the line; False for a copy.

        Or this worker does not have it any more. Its ticket would be offered for ever, and the task
        run each time: only a request of a limited task takes up its slot.
        """
        headers: dict[str, Any] = message.headers
        publication: str | None = headers.get(PUBLICATION)
        keys = tuple(map(str, headers.get(KEYS) or ()))
        for name in HEADERS:  # else a retry would have them
            headers.pop(name, None)
        try:
            is_copy = self._is_copy(message, ticket, publication)
        except StoreError:
            is_copy = False
        # Of a copy, too: the process that took the first one may have been killed before it did so.
        self.scheduler.call_soon(lambda: self._drop(ticket, keys, task))
        if is_copy:
            message.ack()
        return not is_copy

    def _is_copy(self, message: Any, ticket: str, publication: str | None) -> bool:
        """Whether another message of a task that has no limits runs, or has run.

        What the broker delivers again may be the message that was to run: its worker died.

        Raises:
            StoreError: the store could not be used.
        """
        info: dict[str, Any] = message.delivery_info or {}
        delivery = uuid.uuid4().hex
        if publication is None:  # an earlier release published it
            return not self.markers.set_once(ticket, delivery) and not info.get("redelivered")
        if not self.markers.set_once(ticket, publication):
            return True
        if info.get("redelivered"):
            return False
        # It was sent to the broker twice if the reply was lost.
        return not self.markers.set_once(f"{ticket}:{publication}", delivery)

    def _drop(self, ticket: str, keys: tuple[str, ...], task: str) -> None:
        try:
            self.gate.drop(ticket, keys, function=task)
        except StoreError:
            self.scheduler.call_later(_RETRY_AFTER, lambda: self._drop(ticket, keys, task))
