"""Admission of tasks: into the pool, into the store to wait, or not at all."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from limiter_celery import _celery
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._deferred_deliveries import DeferredDeliveries
from limiter_celery._delivery import Delivery, job_of
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._refusal_reasons import RefusalReasons, Why
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._revocations import Revocations, have_in_common, stamps_of
from limiter_celery._start_reservations import StartReservations
from limiter_core import LimitReached, StoreError, Superseded
from limiter_core.jobs import Held, Job, SyncJobGate, Waiting
from limiter_core.lease import SyncLease
from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")

RETRY_AFTER = 1.0
"""Seconds before a task is tried again that could not be admitted: the store was away."""

_REFUSED_BEFORE = "it was refused when it was delivered before"
"""The reason of a task whose worker was killed when it reported it as not to run."""

_RETRY_WHILE_HELD = 5.0
"""Seconds, at most, before a delivery is tried again whose task still runs elsewhere."""


@dataclass(kw_only=True, eq=False)
class Admission:
    """Decides for each delivery of a limited task."""

    gate: SyncJobGate
    markers: CompletionMarkers
    starts: StartReservations
    reasons: RefusalReasons
    revocations: Revocations
    parked_tasks: ParkedTasks
    releases: ReleaseTracker
    deferred: DeferredDeliveries
    without_store: bool  # whether tasks run while the store is away
    _away_until: float = field(default=0.0, init=False)

    def admit(self, request: Any) -> None:
        """Admit a task, if it may run now. No other error is raised than that it may not.

        Raises:
            TaskRevokedError: it may not; all that has to be done for it has been done.
        """
        try:
            admitted = self._admit(request)
        except Exception:
            logger.exception("could not admit %s", request.id)
            request.delivery.outcome_unknown = True  # its ticket may wait all the same
            self.deferred.retry_later(request, RETRY_AFTER)
            admitted = False
        if not admitted:
            raise _celery.TaskRevokedError(request.id)

    def _admit(self, request: Any) -> bool:
        delivery: Delivery = request.delivery
        if delivery.handed_over or request.revoked():
            return False
        if delivery.lease is not None:
            return True
        if delivery.is_local:
            if delivery.has_slot() and self._may_start(delivery):
                return True
            # It came too late, and its ticket is offered again; or another delivery has started.
            delivery.handed_over = True
            _celery.state.task_ready(request)
            return False
        if time.monotonic() < self._away_until and not self.without_store:
            self.deferred.retry_later(request, RETRY_AFTER)
            return False
        try:
            return self._ask(request)
        except StoreError:
            # Its ticket may wait all the same, or have the slot: then it is dispatched besides.
            delivery.outcome_unknown = True
            self._away_until = time.monotonic() + RETRY_AFTER
            self.deferred.retry_later(request, RETRY_AFTER)
        except (LimitReached, Superseded) as error:
            self._refuse(request, error)
        return False

    def _refuse(self, request: Any, error: Exception) -> None:
        """Report a task that is not to run."""
        ticket, why = request.delivery.ticket, Why(str(error), error, None)
        with suppress(StoreError):
            why = self.reasons.of(ticket, error)
            if request.delivery.waited:
                # Where this worker is killed, the broker delivers the message again: perhaps when
                # the store has forgotten the refusal, and the task could run, though reported.
                self.markers.set_refused(ticket)
        request.announce_revoked(why.text, expired=why.noted == "expired")
        if why.noted is not None:
            with suppress(StoreError):  # the reason last: what reports it, too, reads that first
                self.gate.drop(ticket)
                self.reasons.forget(ticket, why.noted)

    def _ask(self, request: Any) -> bool:
        """Ask for the slots of a task; whether it got them.

        Raises:
            StoreError: the store could not be used.
            LimitReached, Superseded: it is not to run.
        """
        try:
            job = job_of(request)
            if job is None:
                return True  # without a slot: its arguments do not fit, so its body will raise
            outcome = self._claim(request, job)
        except (LimitReached, Superseded, StoreError):
            raise
        except Exception as error:  # noqa: BLE001  # of a strategy, or a function of the call
            _fail(request, error)
            return False
        if isinstance(outcome, Held):
            self._handle_duplicate(request, outcome)
            return False
        if outcome is None:
            if self._has_finished(request.delivery):
                _acknowledge(request)
            else:  # the worker of the other one may die before that: then this one starts
                self.deferred.retry_later(request, RETRY_AFTER)
            return False
        # With its slot, or its place in line, in hand: so no other delivery finishes meanwhile.
        delivery: Delivery = request.delivery
        try:
            is_revoked = self._was_revoked(request)
            is_copy = not is_revoked and self._is_copy(request, outcome)
            was_refused = is_copy and self.markers.set_refused(delivery.ticket)
            is_to_run = not is_revoked and not is_copy
        except BaseException:
            if isinstance(outcome, SyncLease):
                self.gate.take_back(outcome)
            raise
        if is_to_run and isinstance(outcome, SyncLease):
            self.releases.track(request, outcome)
            return True
        if is_to_run and isinstance(outcome, Waiting):
            self.gate.confirm(outcome)
            self.parked_tasks.add(request, job, outcome)
            if _is_revoked(request):  # while it was parked: it was not found among those that wait
                self.parked_tasks.revoke({request.id})
        else:
            self.gate.take_back(outcome)
            if is_revoked:
                self.gate.report_removed(delivery.ticket, function=request.name)
            elif was_refused:
                request.announce_revoked(_REFUSED_BEFORE)
                return False
        _acknowledge(request)
        return False

    def _may_start(self, delivery: Delivery) -> bool:
        """Whether a local delivery still has its grant, and no other one starts."""
        try:
            return self.starts.reserve_unclaimed(delivery.ticket, delivery.id, *delivery.grant)
        except StoreError:
            return False

    def _claim(self, request: Any, job: Job) -> SyncLease | Waiting | Held | None:
        """Ask for the slots of a task; None where another delivery of the same grant starts.

        Raises:
            StoreError: the store could not be used.
            LimitReached, Superseded: it is not to run.
        """
        delivery: Delivery = request.delivery
        on_lost = self.releases.on_lost(request)
        if not delivery.waited or request.task.acks_late:  # else none is delivered within a worker
            return self.gate.admit(job, on_lost, confirmed=False)
        if not self.starts.reserve(delivery.ticket, delivery.id):
            return None
        try:
            return self.gate.admit(job, on_lost, confirmed=False)
        finally:
            with suppress(StoreError):  # it ends by itself
                self.starts.release(delivery.ticket, delivery.id)

    def _was_revoked(self, request: Any) -> bool:
        """Whether a task was revoked while it waited, before this worker could load what was.

        Raises:
            StoreError: the store could not be used.
        """
        if not request.delivery.waited or self.revocations.loaded:
            return False
        self.revocations.load()
        return bool(request.revoked())

    def _is_copy(self, request: Any, outcome: SyncLease | Waiting) -> bool:
        """Whether a delivery is a copy of one that has finished.

        Raises:
            StoreError: the store could not be used.
        """
        delivery: Delivery = request.delivery
        if isinstance(outcome, SyncLease) and not outcome.fencing_token:
            delivery.outcome_unknown = True  # without the store, which may have been asked
        elif delivery.may_be_copy:
            return self._has_finished(delivery)
        elif isinstance(outcome, Waiting) or request.task.acks_late:
            self.markers.clear(delivery.ticket)
        return False

    def _has_finished(self, delivery: Delivery) -> bool:
        """Whether a delivery is a copy of one that has finished."""
        age = self.markers.age(delivery.ticket)
        if age is None or self._was_taken_without_limits(delivery):
            return False
        # A marker from before it came may be that of a task of the same id, sent earlier.
        is_copy = delivery.waited or delivery.redelivered
        return is_copy or age < time.monotonic() - delivery.received_at

    def _was_taken_without_limits(self, delivery: Delivery) -> bool:
        """Whether a marker only says that a worker without limits for the task took this message.

        It did not end it: the broker delivers it again.
        """
        publication = delivery.publication
        if publication is None or not delivery.redelivered:
            return False
        if not self.markers.set_once(delivery.ticket, publication):
            return False
        self.markers.clear(delivery.ticket)  # or its next message would be taken for a copy
        return True

    def _handle_duplicate(self, request: Any, held: Held) -> None:
        """Deal with a delivery of a task that runs by another delivery."""
        delivery: Delivery = request.delivery
        if delivery.waited and not delivery.redelivered and not delivery.outcome_unknown:
            _acknowledge(request)  # the delivery that runs has a message of its own
        else:
            left = _RETRY_WHILE_HELD if held.expires_in is None else held.expires_in + 0.1
            self.deferred.retry_later(request, min(left, _RETRY_WHILE_HELD))


def _is_revoked(request: Any) -> bool:
    """Whether this worker has received a revoke of a task, which is not reported here."""
    state, stamps = _celery.state, stamps_of(request.stamps)
    # Name by name: the main thread may add one meanwhile.
    revoked = stamps_of({name: state.revoked_stamps.get(name) for name in stamps})
    return request.id in state.revoked or have_in_common(stamps, revoked)


def _fail(request: Any, error: Exception) -> None:
    """Report the task as failed, as if its body had raised."""
    try:
        raise error
    except Exception:  # noqa: BLE001  # it is raised for its traceback
        info = _celery.ExceptionInfo()
    request.on_failure(info)
    request.acknowledge()


def _acknowledge(request: Any) -> None:
    """Acknowledge the message of a task that is not this worker's any more."""
    request.acknowledge()
    _celery.state.task_ready(request)
