"""Reports as REVOKED the tasks that waited, and must not run: the one place for what that does."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_message import ParkedMessage, unpack
from limiter_celery._refusal_reasons import RefusalReasons
from limiter_celery._request_factory import RequestFactory
from limiter_celery._scheduler import Scheduler
from limiter_celery._worker_state import WorkerState
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate
from limiter_core.keys import bounded
from limiter_core.requests import Demand, Mode, Notice, Refusal, Refused, Replaced, Request
from limiter_core.store import SyncStore

logger = logging.getLogger("limiter")

REPORTED_FOR = 10.0
"""Seconds for which no other worker reports a task that is not to run, although it is notified."""

_RETRY_AFTER = 0.5
"""Seconds between the first two attempts to report a task; then twice as many, and so on."""

_MAX_RETRY_AFTER = 30.0
"""Seconds, at most, between two attempts to report a task."""


@dataclass(kw_only=True, eq=False)
class Refusals:
    """Reports tasks.

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
    reasons: RefusalReasons
    worker: WorkerState
    store: SyncStore

    def report_later(self, notice: Notice, error: Exception) -> None:
        """Report a task that is not to run, unless another worker does; from any thread.

        The store keeps the notice, and has the workers notified of it again and again, until it
        is withdrawn: when the task was reported, or the broker has its message for that.

        Args:
            notice: that its waiting has ended.
            error: why, as far as the store knows.
        """
        reporter = uuid.uuid4().hex
        self.scheduler.call_soon(lambda: self._try(notice, error, reporter, _RETRY_AFTER))

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

    def _try(self, notice: Notice, error: Exception, reporter: str, pause: float) -> None:
        message = unpack(notice.payload)
        task = message.task_in(self.app)
        try:
            if not self.reports.add_for(f"{bounded(notice.id)}:report", reporter):
                return
            why = self.reasons.of(notice.id, error)
            if not self._is_to_be_reported(notice):
                return
            if self.requests.can_report(task):
                self._report(notice.id, message, why.text)
            else:
                message.refused(why.text).publish(self.app)
        except Exception as failure:  # noqa: BLE001  # of the broker's driver, the backend's, or the store's
            _log_failure(notice.id, failure)
            longer = min(pause * 2, _MAX_RETRY_AFTER)
            self.scheduler.call_later(pause, lambda: self._try(notice, error, reporter, longer))
            return
        self.gate.report_removed(notice.id, why.error, function=task)
        # Once only: later the ticket may be that of a task which was sent again under its id. If
        # the store did not get this, it has the workers notified once more.
        with suppress(StoreError):
            self.store.withdraw(notice.id, [key for key, _ in notice.limits])
            self.reasons.forget(notice.id, why.noted)

    def _is_to_be_reported(self, notice: Notice) -> bool:
        """Whether nobody reported a task since the notice came, which may be long ago.

        Raises:
            StoreError: the store could not be used.
        """
        demands = tuple(Demand(key, 1) for key, _ in notice.limits)
        if not demands:  # an earlier release parked it
            return True
        look = Request(notice.id, demands, lease=1.0, mode=Mode.LOOK, payload=b"")
        answer = self.store.acquire(look)
        if isinstance(answer, Refused):
            return answer.reason is not Refusal.UNKNOWN
        return isinstance(answer, Replaced)

    def _report(self, ticket: str, message: ParkedMessage, reason: str, on_ack: Any = None) -> None:
        try:
            self.markers.set(ticket)
        except StoreError:
            logger.debug("the completion of %s is not noted", ticket)
        request = self.requests.make_to_report(message, on_ack)
        request.announce_revoked(reason, expired=reason == "expired")


def _log_failure(ticket: str, error: Exception) -> None:
    logger.warning("could not report the end of %s, will try again: %r", ticket, error)
