"""From the claim of a slot until its release: each lease is given back once, on every outcome."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._delivery import Delivery, job_of
from limiter_celery._main_loop import MainLoop
from limiter_celery._pools import can_terminate
from limiter_celery._scheduler import Scheduler
from limiter_celery._worker_state import WorkerState
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate, Waiting, loss_text
from limiter_core.lease import SyncLease
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")

_RETRY_AFTER = 0.5
"""Seconds between two attempts while the store cannot be used."""


@dataclass(kw_only=True, eq=False)
class ReleaseTracker:
    """Tracks the leases of a worker's tasks."""

    gate: SyncJobGate
    markers: CompletionMarkers
    pool: Any
    main_loop: MainLoop
    scheduler: Scheduler
    worker: WorkerState
    visibility_timeout: float  # after which the broker delivers again what is not acknowledged
    _tracked: dict[int, tuple[Delivery, Any]] = field(
        default_factory=dict[int, tuple[Delivery, Any]], init=False
    )

    def track(self, request: Any, lease: SyncLease) -> None:
        """Keep the lease of a task until it ends."""
        delivery: Delivery = request.delivery
        delivery.lease = lease
        request.request_dict["limiter_fencing_token"] = lease.fencing_token
        # Without an end: the connection broke before its body started.
        finalizer = weakref.finalize(request, self._release_later, delivery)
        finalizer.atexit = False
        self._tracked[id(delivery)] = delivery, finalizer
        if delivery.finished:  # while its slot was asked for
            self._untrack(delivery)
            self.gate.take_back(lease)
            if delivery.started_at is None:
                self.gate.report_removed(delivery.ticket, function=request.name)

    def on_start(self, request: Any) -> None:
        """Note that a body started; a task that this process delivered claims its slot now.

        So the ticket keeps its message for as long as a broker would: until the pool has it.
        """
        delivery: Delivery = request.delivery
        delivery.started_at = time.monotonic()
        if delivery.is_local and delivery.lease is None:
            self._claim(request)
        elif delivery.lease is not None:
            self.gate.confirm(delivery.lease)
        if delivery.is_local or (delivery.may_be_copy and not request.task.acks_late):
            # From here on it runs at most once, as in Celery.
            self._set_marker(delivery)

    def on_end(self, request: Any, *, completed: bool = True, in_main_loop: bool = False) -> None:
        """Give the slot of a task back, once; now, or in the main loop. The next task is woken.

        The delivery has `completed` if it has an outcome, and is not to run again.
        """
        if not request.delivery.finish():
            return
        if in_main_loop:
            self.main_loop.call_soon(lambda: self._release(request, completed))
        else:
            self._release(request, completed)

    def on_lost(self, request: Any) -> Callable[[Loss], None]:
        """Return what stops the body of a task whose lease is lost. It keeps no request alive."""
        reference = weakref.ref(request)

        def stop(loss: Loss) -> None:
            request = reference()
            if request is None or request.delivery.finished:
                return
            if self.main_loop.is_unreachable():
                self.main_loop.call_soon(lambda: stop(loss))
                return
            self.main_loop.call_soon(lambda: self._stop_body(request, loss))

        return stop

    def on_new_connection(self) -> None:
        """Give back the slots of tasks that did not start, and whose messages are gone.

        The broker delivers them again, on the new connection or to another worker.
        """
        for delivery, _ in list(self._tracked.values()):
            if delivery.connection != self.worker.connection and delivery.hand_over():
                self._release_later(delivery)

    def has_any(self) -> bool:
        """Whether any task of this worker has a slot."""
        return bool(self._tracked)

    def release_all(self) -> None:
        """Give all slots back: the process ends, and no body runs any more.

        For a cold shutdown, which kills the children and reports no outcome.
        """
        for delivery, _ in list(self._tracked.values()):
            if delivery.finish() and delivery.lease is not None:
                delivery.lease.release()

    def _claim(self, request: Any) -> None:
        job = request.delivery.job or job_of(request)
        if job is None:
            return
        try:
            outcome = self.gate.admit(job, self.on_lost(request), confirmed=False)
        except StoreError:
            self.scheduler.call_later(_RETRY_AFTER, lambda: self._claim(request))
            return
        except Exception:
            logger.exception("%s runs without its slot", request.id)
            return
        if isinstance(outcome, SyncLease):
            self.gate.confirm(outcome)
            self.track(request, outcome)
            return
        logger.warning("%s came too late for its slot, and runs without one", request.id)
        if isinstance(outcome, Waiting):
            self.gate.take_back(outcome)
            self.gate.report_removed(request.delivery.ticket, function=request.name)

    def _release(self, request: Any, completed: bool) -> None:
        delivery: Delivery = request.delivery
        self._untrack(delivery)
        if completed and request.acknowledged and not delivery.requeued:
            if not delivery.has_marker and self._may_have_copies(request):
                self._set_marker(delivery)
        if delivery.lease is not None:
            if completed:
                self.gate.confirm(delivery.lease)  # it may have ended before its body started
            with self.worker.own_step():
                delivery.lease.release()
        elif delivery.is_local or delivery.waited:
            # It has a slot, but is not to run: it was revoked, or has expired.
            self.scheduler.call_soon(lambda: self._drop_ticket(request))

    def _may_have_copies(self, request: Any) -> bool:
        delivery: Delivery = request.delivery
        if delivery.is_local or delivery.may_be_copy:
            return True
        if not request.task.acks_late or delivery.started_at is None:
            return False
        # The broker delivers again what is not acknowledged when the connection ends, or in time.
        ran_for = time.monotonic() - delivery.started_at
        is_old = delivery.connection != self.worker.connection
        return is_old or ran_for > self.visibility_timeout / 2

    def _set_marker(self, delivery: Delivery) -> None:
        try:
            self.markers.set(delivery.ticket)
            delivery.has_marker = True
        except StoreError:
            logger.debug("the completion of %s is not noted", delivery.ticket)

    def _drop_ticket(self, request: Any) -> None:
        """Remove the ticket of a task that is not to run, and hand its slot over."""
        try:
            self.gate.drop(request.delivery.ticket, function=request.name)
        except StoreError:
            self.scheduler.call_later(_RETRY_AFTER, lambda: self._drop_ticket(request))

    def _stop_body(self, request: Any, loss: Loss) -> None:
        delivery: Delivery = request.delivery
        if delivery.finished:
            return
        why = loss.value if delivery.lease is None else loss_text(delivery.lease)
        if delivery.submitted or delivery.lease is None:
            if can_terminate(self.pool):
                delivery.loss = why
                request.terminate(self.pool)
        elif loss is Loss.PREEMPTED:
            request.announce_revoked(why)
        else:
            # It waits for a process, and asks for a slot again when there is one.
            again = "lost its slot before it began, and asks again"
            logger.warning("%s[%s] %s: %s", request.name, request.id, again, loss.value)
            lease, delivery.lease = delivery.lease, None
            self._untrack(delivery)
            lease.release()

    def _release_later(self, delivery: Delivery) -> None:
        self._untrack(delivery)
        if delivery.finish() and delivery.lease is not None:
            self.scheduler.call_soon(delivery.lease.release)

    def _untrack(self, delivery: Delivery) -> None:
        tracked = self._tracked.pop(id(delivery), None)
        if tracked is not None:
            tracked[1].detach()
