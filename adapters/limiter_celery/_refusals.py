"""Reports as REVOKED the tasks that waited, and must not run: the one place for what that does."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_message import ParkedMessage, unpack
from limiter_celery._request_factory import RequestFactory
from limiter_celery._scheduler import Scheduler
from limiter_celery._worker_state import WorkerState
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate
from limiter_core.keys import bounded
from limiter_core.requests import Notice

logger = logging.getLogger("limiter")

REPORTED_FOR = 30.0
"""Seconds for which no other worker reports a task that the store refused, although it is told."""

_RETRY_AFTER = 0.5
"""Seconds between the first two attempts to report a task; then twice as many, and so on."""

_MAX_RETRY_AFTER = 30.0
"""Seconds, at most, between two attempts to report a task."""


@dataclass(kw_only=True, eq=False)
class Refusals:
    """Reports tasks; no other process knows of them any more.

    Whichever worker has the task reports it: it need have no limits there. A worker that does not
    have it publishes the message for one that does.
    """

    app: Any
    requests: RequestFactory
    markers: CompletionMarkers
    scheduler: Scheduler
    main_loop: MainLoop
    gate: SyncJobGate
    reports: ExpiringSet
    worker: WorkerState
    withdraw: Callable[[str, Sequence[str]], object]  # of the store

    def report_later(self, ticket: str, payload: bytes, reason: str) -> None:
        """Report a task that this worker took out of the line, until that is done.

        From any thread.

        Args:
            ticket: names the attempt.
            payload: the parked message.
            reason: why it must not run.
        """
        self.scheduler.call_soon(lambda: self._try(ticket, unpack(payload), reason))

    def report_refused_later(self, notice: Notice, error: Exception) -> None:
        """Report a task that the store refused, unless another worker does; from any thread.

        A worker that sweeps is told of it as well, until it is withdrawn.
        """
        self.scheduler.call_soon(lambda: self._report_refused(notice, error))

    def report_delivered(
        self, ticket: str, message: ParkedMessage, reason: str, delivered: Any
    ) -> None:
        """Report a task whose message a worker published for that, until it is done.

        In the main loop. The message is acknowledged when it is done: the broker has it until then.

        Args:
            ticket: names the attempt.
            message: as it was parked.
            reason: why it must not run.
            delivered: the message as the broker delivered it.
        """
        connection = self.worker.connection

        def report(pause: float = _RETRY_AFTER) -> None:
            if self.worker.connection != connection:
                return  # that connection is gone: the broker delivers the message again
            try:
                self._report(ticket, message, reason, delivered.ack_log_error)
            except Exception as error:  # noqa: BLE001  # of the backend's driver
                _log_failure(ticket, error)
                again = partial(report, min(pause * 2, _MAX_RETRY_AFTER))
                self.scheduler.call_later(pause, lambda: self.main_loop.call_soon(again))

        report()

    def _report_refused(self, notice: Notice, error: Exception) -> None:
        message = unpack(notice.payload)
        try:
            if not self.reports.add_for(f"{bounded(notice.id)}:report", uuid.uuid4().hex):
                return
        except StoreError:  # it is told once more
            return
        task = message.task_in(self.app)
        self.gate.report_removed(notice.id, error, function=task)
        # Later the ticket may be that of a task which was sent again under its id.
        if self._try(notice.id, message, str(error)):
            with suppress(StoreError):
                self.withdraw(notice.id, [key for key, _ in notice.limits])

    def _try(
        self, ticket: str, message: ParkedMessage, reason: str, pause: float = _RETRY_AFTER
    ) -> bool:
        try:
            if self.requests.can_report(message.task_in(self.app)):
                self._report(ticket, message, reason)
            else:
                message.refused(reason).publish(self.app)
        except Exception as error:  # noqa: BLE001  # of the broker's driver, or the backend's
            _log_failure(ticket, error)
            longer = min(pause * 2, _MAX_RETRY_AFTER)
            self.scheduler.call_later(pause, lambda: self._try(ticket, message, reason, longer))
            return False
        return True

    def _report(self, ticket: str, message: ParkedMessage, reason: str, on_ack: Any = None) -> None:
        try:
            self.markers.set(ticket)
        except StoreError:
            logger.debug("the completion of %s is not noted", ticket)
        request = self.requests.make_to_report(message, on_ack)
        request.announce_revoked(reason, expired=reason == "expired")


def _log_failure(ticket: str, error: Exception) -> None:
    logger.warning("could not report the end of %s, will try again: %r", ticket, error)
