"""Keeps the limits of an app's tasks in one worker: builds the parts, and gives each what it uses.

They live in the worker's main process; no child of a pool uses the store. The message of a task is
kept whatever process is killed: by the broker, or by the task's ticket in the store while it waits,
and from its grant until a worker has claimed its slot.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any, Literal

from limiter_celery import _celery
from limiter_celery._admission import Admission
from limiter_celery._admission_hook import AdmissionHook
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._deferred_deliveries import DeferredDeliveries
from limiter_celery._dispatcher import Dispatcher
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._granted_messages import GrantedMessages
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._pools import DeadChildCheck
from limiter_celery._publisher import Publisher
from limiter_celery._refusal_reasons import RefusalReasons
from limiter_celery._refusals import REPORTED_FOR, Refusals
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._request import LimitedRequest, RequestParts
from limiter_celery._request_factory import RequestFactory
from limiter_celery._revocations import Revocations
from limiter_celery._revoke_commands import RevokeReceiver
from limiter_celery._scheduler import Scheduler
from limiter_celery._start_reservations import StartReservations
from limiter_celery._sweeper import Sweeper
from limiter_celery._task import check_task
from limiter_celery._worker_state import WorkerState
from limiter_core.jobs import SyncJobGate
from limiter_core.registry import open_store
from limiter_core.requests import Notice
from limiter_core.store import Store

_VISIBILITY_TIMEOUT = 3600.0
_MARGIN = 600.0
_LAST_CALLS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What `install` was given; see there."""

    store: str | Store
    name: str
    claim: float
    on_store_error: Literal["raise", "admit"]
    remember: float | None


def _has_waited(request: Any) -> bool:
    return isinstance(request, LimitedRequest) and request.delivery.waited


class WorkerLimiter:
    """The limiter in one worker, whose pool has started."""

    def __init__(self, worker: Any, settings: Settings) -> None:
        app, pool, consumer = worker.app, worker.pool, worker.consumer
        store = open_store(settings.store)
        face = store.sync_face()
        options: dict[str, Any] = app.conf.broker_transport_options or {}
        visibility_timeout = float(options.get("visibility_timeout") or _VISIBILITY_TIMEOUT)
        remember = settings.remember
        remember = visibility_timeout + _MARGIN if remember is None else float(remember)
        semaphore = _celery.semaphore_of(worker)

        self._app = app
        self._pool = pool
        self._pid = os.getpid()
        self._state = state = WorkerState()
        self._main_loop = main_loop = MainLoop()
        self._scheduler = scheduler = Scheduler("limiter-celery")
        self._store_scheduler = store_scheduler = Scheduler("limiter-celery-sweep")
        # Of its own: thousands of tasks may expire, or be revoked, in one instant. What the others
        # do is late if it comes seconds late.
        self._ends_scheduler = ends_scheduler = Scheduler("limiter-celery-ends")
        self._gate = gate = SyncJobGate(
            store,
            settings.name,
            self._dispatch,
            claim=settings.claim,
            on_store_error=settings.on_store_error,
            label=str(worker.hostname),
        )
        markers = CompletionMarkers(face, settings.name, remember)
        starts = StartReservations(face, settings.name, settings.claim)
        reasons = RefusalReasons(face, settings.name)
        revocations = Revocations(face, settings.name, _celery.REVOKE_EXPIRES)
        self._requests = requests = RequestFactory(consumer)
        refusals = Refusals(
            app=app,
            requests=requests,
            markers=markers,
            scheduler=ends_scheduler,
            main_loop=main_loop,
            gate=gate,
            worker=state,
            reports=ExpiringSet(face, f"{settings.name}:reports", REPORTED_FOR),
            reasons=reasons,
            store=face,
        )
        self._granted = GrantedMessages(
            app=app,
            requests=requests,
            markers=markers,
            refusals=refusals,
            gate=gate,
            scheduler=scheduler,
        )
        parked_tasks = ParkedTasks(face, starts, reasons, ends_scheduler.call_later)
        self._publisher = Publisher(app, scheduler, gate)
        self._dispatcher = Dispatcher(
            consumer=consumer,
            gate=gate,
            claim=settings.claim,
            requests=requests,
            revocations=revocations,
            parked_tasks=parked_tasks,
            publisher=self._publisher,
            refusals=refusals,
            main_loop=main_loop,
            worker=state,
        )
        self._releases = releases = ReleaseTracker(
            gate=gate,
            markers=markers,
            pool=pool,
            main_loop=main_loop,
            scheduler=scheduler,
            worker=state,
            visibility_timeout=visibility_timeout,
        )
        self._deferred = DeferredDeliveries(consumer=consumer, main_loop=main_loop, worker=state)
        admission = Admission(
            gate=gate,
            markers=markers,
            starts=starts,
            reasons=reasons,
            revocations=revocations,
            parked_tasks=parked_tasks,
            releases=releases,
            deferred=self._deferred,
            without_store=settings.on_store_error == "admit",
        )
        consumer.on_task_request = AdmissionHook(
            app=app,
            process=consumer.on_task_request,
            timer=consumer.timer,
            semaphore=semaphore,
            claim=settings.claim,
            admission=admission,
            releases=releases,
            main_loop=main_loop,
            scheduler=scheduler,
        )
        # A task that waited has waited for its rate before. Behind others that wait for it, it
        # would not claim its slot in time, again and again, and no task would run.
        _celery.let_pass_rate_limits(consumer, _has_waited)
        self._request_class = LimitedRequest.using(
            RequestParts(
                admission=admission, releases=releases, revocations=revocations, worker=state
            )
        )
        self._revokes = RevokeReceiver(
            parked_tasks=parked_tasks,
            revocations=revocations,
            scheduler=ends_scheduler,
            store_scheduler=store_scheduler,
        )
        self._sweeper = Sweeper(
            gate=gate, revocations=revocations, scheduler=store_scheduler, worker=state
        )
        dispatcher = self._dispatcher
        self._dead_children = None
        if semaphore is not None:  # a pool of processes
            _celery.keep_running_jobs(pool)
            self._dead_children = DeadChildCheck(
                pool, lambda: releases.has_any() or dispatcher.has_any()
            )

    def start(self) -> None:
        """Start to keep limits."""
        self._scheduler.start()
        self._store_scheduler.start()
        self._ends_scheduler.start()
        self._sweeper.start()
        self._revokes.subscribe()
        atexit.register(self._at_exit)

    def on_connection(self, consumer: Any) -> None:
        """Use the new connection of the consumer to the broker."""
        self._state.connection += 1
        self._deferred.forget_all()
        self._releases.on_new_connection()
        self._dispatcher.hand_over()
        self._main_loop.connect(consumer.hub, consumer.timer)
        if self._dead_children is not None and consumer.hub is not None:
            self._dead_children.connect(consumer.hub)

    def on_message(self, message: Any) -> bool:
        """Return whether a message that the broker delivers is to be processed."""
        return self._granted.is_to_run(message)

    def prepare(self, task: Any) -> type[LimitedRequest]:
        """Return the class of the requests of a task.

        Raises:
            ConfigurationError: this worker cannot keep its limits.
        """
        check_task(task, self._pool)
        self._requests.add(task, self._request_class)
        return self._request_class

    def _dispatch(self, notice: Notice) -> None:
        self._dispatcher.dispatch(notice)  # it is made after the gate, which it uses

    def stop_fetching(self) -> None:
        """Have other workers run the tasks that wait: this one is about to end."""
        if not self._state.closing:
            self._state.closing = True
            self._store_scheduler.call_soon(self._gate.leave)
            self._publisher.close()
            self._dispatcher.hand_over()
            self._main_loop.run_pending()

    def close(self) -> None:
        """End."""
        self.stop_fetching()
        self._scheduler.stop(_LAST_CALLS)
        self._ends_scheduler.stop(1.0, early=False)  # no task has expired by that
        self._store_scheduler.stop(1.0, early=False)
        self._gate.close()
        self._main_loop.close()

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # else it is a child of the pool
            self.stop_fetching()
            self._releases.release_all()
            self._scheduler.stop(_LAST_CALLS)
