"""Dispatches tasks whose turn has come: to this worker if it can run them at once, else by broker.

Only a task that is acknowledged when it starts is delivered here: what no broker has is not
delivered again if this process is killed while it runs.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

from limiter_celery import _celery
from limiter_celery._delivery import Delivery, job_of
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_message import ParkedMessage, unpack
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._publisher import Publisher
from limiter_celery._refusals import Refusals
from limiter_celery._request_factory import RequestFactory
from limiter_celery._revocations import Revocations
from limiter_celery._worker_state import WorkerState
from limiter_core.jobs import SyncJobGate, error_of
from limiter_core.requests import Granted, Notice
from limiter_core.system_clock import system_clock as time

_PART_OF_CLAIM = 0.8
"""The part of the claim time in which a task that is delivered here may start without asking."""


@dataclass(kw_only=True, eq=False)
class Dispatcher:
    """Delivers the tasks that the notices of the store name."""

    consumer: Any
    gate: SyncJobGate
    claim: float  # seconds that a granted task has to claim its slot
    requests: RequestFactory
    revocations: Revocations
    parked_tasks: ParkedTasks
    publisher: Publisher
    refusals: Refusals
    main_loop: MainLoop
    worker: WorkerState
    _coming: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _delivered: weakref.WeakKeyDictionary[Any, ParkedMessage] = field(
        default_factory=weakref.WeakKeyDictionary[Any, ParkedMessage], init=False
    )

    def dispatch(self, notice: Notice) -> None:
        """Deliver a task whose waiting is over; from any thread."""
        if self.main_loop.is_unreachable():
            self.main_loop.call_soon(lambda: self.dispatch(notice))
            return
        error = error_of(notice)
        message = unpack(notice.payload)
        keys = tuple(key for key, _ in notice.limits)
        self.parked_tasks.forget(notice.id)
        if error is not None:
            self.refusals.report_later(notice, error)
        elif (
            isinstance(notice.answer, Granted)
            and self.worker.in_own_step
            and self._can_run(message)
        ):
            grant = keys, notice.answer.fencing_token
            until = time.monotonic() + self.claim * _PART_OF_CLAIM
            with self._lock:
                self._coming += 1
            self.main_loop.call_soon(lambda: self._deliver(notice.id, message, grant, until))
        else:
            self.publisher.publish_later(notice.id, message, keys)

    def has_any(self) -> bool:
        """Whether a task was delivered here that has not ended."""
        return any(not request.delivery.finished for request in list(self._delivered))

    def hand_over(self) -> None:
        """Have what was delivered here, and did not start, start elsewhere."""
        for request, message in list(self._delivered.items()):
            delivery: Delivery = request.delivery
            if not delivery.finished and not delivery.handed_over and delivery.hand_over():
                self.publisher.publish_later(delivery.ticket, message, delivery.grant[0])

    def _can_run(self, message: ParkedMessage) -> bool:
        """Whether a task can start here and now."""
        consumer = self.consumer
        app = consumer.app
        if self.worker.closing or consumer.blueprint.state != _celery.RUN:
            return False
        task = message.task_in(app)
        if not self.requests.has(task) or not self.revocations.loaded:
            return False
        if app.tasks[task].acks_late or message.queue not in app.amqp.queues.consume_from:
            return False
        busy = len(_celery.state.reserved_requests) + self._coming
        return bool(busy < consumer.pool.num_processes)

    def _deliver(
        self, ticket: str, message: ParkedMessage, grant: tuple[tuple[str, ...], int], until: float
    ) -> None:
        """Deliver a task in this process; in the main loop."""
        with self._lock:
            self._coming -= 1
        if not self._can_run(message):
            self.publisher.publish_later(ticket, message, grant[0])
            return
        request = self.requests.make(message)
        delivery: Delivery = request.delivery
        delivery.is_local = True
        delivery.order = message.order
        delivery.reserved_until = until
        delivery.grant = grant
        if not self._has_keys(request, grant[0]):
            self.publisher.publish_later(ticket, message, grant[0])
            return
        request.request_dict["limiter_fencing_token"] = grant[1]
        weakref.finalize(request, self._publish_unless_started, delivery, message).atexit = False
        self._delivered[request] = message
        if request.revoked():
            return
        _celery.state.task_reserved(request)
        self.consumer.on_task_request(request)

    def _has_keys(self, request: Any, keys: tuple[str, ...]) -> bool:
        """Whether the limits of a task still have the keys on which it was granted."""
        delivery: Delivery = request.delivery
        try:
            job = job_of(request)
            if job is None:
                return True
            delivery.job = job = self.gate.looked_up(job)
        except Exception:  # noqa: BLE001  # of a strategy: the worker that gets it from the broker reports it
            return False
        return {demand.key for demand in job.demands} == set(keys)

    def _publish_unless_started(self, delivery: Delivery, message: ParkedMessage) -> None:
        """A request is gone: if it never started, the connection to the broker broke."""
        if delivery.started_at is None and not delivery.finished and not delivery.handed_over:
            self.publisher.publish_later(delivery.ticket, message, delivery.grant[0])
