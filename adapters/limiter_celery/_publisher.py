"""Publishes granted tasks for any worker; reports as REVOKED those that must not run."""

from __future__ import annotations

import collections
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._parked_message import ParkedMessage, unpack
from limiter_celery._queues import QueueMissing
from limiter_celery._request_factory import RequestFactory
from limiter_celery._scheduler import Scheduler
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate
from limiter_core.keys import bounded
from limiter_core.requests import Notice
from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")

_LAST_POLL = 1.5
"""Seconds for which a worker that is about to end may still take a message off a Redis broker: its
last poll may be under way when it stops to read the reply."""

_ATTEMPTS = 3
"""How often a task is published to a queue that is deleted with its consumers, and of which this
worker does not know whether it exists. If its slot is not claimed, there are no consumers."""


_MAX_RETRY_AFTER = 30.0
"""Seconds, at most, between two attempts to report a task."""

REPORTED_FOR = 30.0
"""Seconds for which no other worker reports a task that the store refused, although it is told."""


class Publisher:
    """Publishes what the store has granted. What fails is offered again by the store.

    Args:
        app: the Celery app.
        scheduler: in which it publishes, and drops.
        gate: what drops a ticket.
    """

    def __init__(self, app: Any, scheduler: Scheduler, gate: SyncJobGate) -> None:
        self._app = app
        self._scheduler = scheduler
        self._gate = gate
        self._closed_at: float | None = None
        self._attempts: collections.Counter[str] = collections.Counter()

    def close(self) -> None:
        """This worker is about to end: publish from now on only what it cannot take itself."""
        self._closed_at = time.monotonic()

    def publish_later(self, ticket: str, message: ParkedMessage, keys: Sequence[str] = ()) -> None:
        """Publish the message of a task that was granted on these keys; from any thread."""
        wait = 0.0
        if self._closed_at is not None:
            wait = max(self._closed_at + _LAST_POLL - time.monotonic(), 0.0)
        self._scheduler.call_later(wait, lambda: self._publish(ticket, message, keys))

    def _publish(self, ticket: str, message: ParkedMessage, keys: Sequence[str]) -> None:
        try:
            if message.temporary and message.queue not in self._app.amqp.queues:
                self._attempts[ticket] += 1
                if self._attempts[ticket] > _ATTEMPTS:
                    raise QueueMissing(f"no worker consumes the queue {message.queue}")
            message.publish(self._app, keys)
        except QueueMissing as error:
            if not message.temporary:
                logger.warning("could not wake a task, will try again: %s", error)
                return
            # A queue of one worker, as for broadcasts: what is left in it ends with it.
            logger.warning("%s is dropped: %s", ticket, error)
            del self._attempts[ticket]
            with suppress(StoreError):  # it is offered again
                self._gate.drop(ticket)
        except Exception as error:  # noqa: BLE001  # its ticket is offered again
            logger.warning("could not wake a task, will try again: %r", error)


@dataclass(kw_only=True, eq=False)
class Refusals:
    """Reports tasks that waited, and must not run. No other process knows of them any more."""

    app: Any
    requests: RequestFactory
    markers: CompletionMarkers
    scheduler: Scheduler
    gate: SyncJobGate
    reports: ExpiringSet
    withdraw: Callable[[str, Sequence[str]], object]  # of the store

    def report_later(self, ticket: str, payload: bytes, reason: str) -> None:
        """Report a task that this worker took out of the line, until that is done.

        From any thread.

        Args:
            ticket: names the attempt.
            payload: the parked message.
            reason: why it must not run.
        """
        self.scheduler.call_soon(lambda: self._try(ticket, unpack(payload), reason, 0.5))

    def report_refused_later(self, notice: Notice, error: Exception) -> None:
        """Report a task that the store refused, unless another worker does; from any thread.

        A worker that sweeps is told of it as well, until it is withdrawn.
        """
        self.scheduler.call_soon(lambda: self._report_refused(notice, error))

    def _report_refused(self, notice: Notice, error: Exception) -> None:
        message = unpack(notice.payload)
        try:
            if not self.reports.add_for(f"{bounded(notice.id)}:report", uuid.uuid4().hex):
                return
        except StoreError:  # it is told once more
            return
        self.gate.report_removed(notice.id, error, function=message.task)
        # Later the ticket may be that of a task which was sent again under its id.
        if self._try(notice.id, message, str(error), 0.5):
            with suppress(StoreError):
                self.withdraw(notice.id, [key for key, _ in notice.limits])

    def _try(self, ticket: str, message: ParkedMessage, reason: str, pause: float) -> bool:
        try:
            self._report(ticket, message, reason)
        except Exception as error:  # noqa: BLE001  # of the broker's driver, or the backend's
            logger.warning("could not report the end of %s, will try again: %r", ticket, error)
            longer = min(pause * 2, _MAX_RETRY_AFTER)
            self.scheduler.call_later(pause, lambda: self._try(ticket, message, reason, longer))
            return False
        return True

    def _report(self, ticket: str, message: ParkedMessage, reason: str) -> None:
        if not self.requests.has(message.task):
            message.refused(reason).publish(self.app)
            return
        try:
            self.markers.set(ticket)
        except StoreError:
            logger.debug("the completion of %s is not noted", ticket)
        request = self.requests.make(message)
        request.delivery.finished = True  # it has no ticket any more
        request.announce_revoked(reason, expired=reason == "expired")
