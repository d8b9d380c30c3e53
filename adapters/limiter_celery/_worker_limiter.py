"""The porter of a worker: what its parts share, and when they begin and end.

It lives in the worker's main process; no child of a pool ever speaks to the store. Who owns the
message of a task: the broker, but while the task waits, and while its turn has come and nobody took
it up, its ticket in the store does. So it is there at every moment, whoever is killed.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from limiter_celery import _celery
from limiter_celery._admission import Admission
from limiter_celery._admission_hook import Reception
from limiter_celery._completion_markers import Marks
from limiter_celery._deferred_deliveries import Aside
from limiter_celery._dispatcher import Waking
from limiter_celery._main_loop import Post
from limiter_celery._parked_message import unpack
from limiter_celery._parked_tasks import WaitingRoom
from limiter_celery._pools import admits_in_pool, can_terminate
from limiter_celery._release_tracker import Endings
from limiter_celery._revocations import Revocations, Stamps
from limiter_celery._scheduler import Errands
from limiter_celery._settings import Settings
from limiter_celery._task import check_arguments, limits_of_task
from limiter_core import ConfigurationError, ConflictResolution, StoreError
from limiter_core.jitter import jitter
from limiter_core.jobs import SyncJobGate
from limiter_core.registry import open_store

logger = logging.getLogger("limiter")

_LOOK_EVERY = 0.25
_VISIBILITY = 3600.0
_MARGIN = 600.0
_LEARN_AGAIN = 1.0


class Porter:
    """Keeps the limits of an app's tasks in one worker.

    Args:
        app: the app.
        settings: what `install` was told.

    Attributes:
        app: the app.
        settings: what `install` was told.
        worker: the worker, once it starts.
        consumer: its consumer, the one of now.
        connection: counts its connections to the broker.
        closing: whether the worker is about to end.
        admits_in_pool: whether tasks are admitted in the pool's threads.
        pool_is_green: whether those are green.
        has_semaphore: whether tasks wait for a free process in the worker's semaphore.
        classes: for each limited task, the class of its requests.
        visibility: seconds after which the broker delivers what is not acknowledged once more.
    """

    gate: SyncJobGate
    marks: Marks
    waiting_room: WaitingRoom
    revocations: Revocations

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.worker: Any = None
        self.consumer: Any = None
        self.connection = 0
        self.closing = False
        self.admits_in_pool = False
        self.pool_is_green = False
        self.has_semaphore = False
        self.classes: dict[str, Any] = {}
        options: dict[str, Any] = app.conf.broker_transport_options or {}
        self.visibility = float(options.get("visibility_timeout") or _VISIBILITY)
        self.post = Post()
        self.errands = Errands("limiter-celery")
        self.aside = Aside(self)
        self.endings = Endings(self)
        self.admission = Admission(self)
        self.waking = Waking(self)
        self._sweeps = Errands("limiter-celery-sweep")
        self._looking: Any = None
        self._pid = os.getpid()

    def start(self, worker: Any) -> None:
        """Begin to keep limits."""
        self.worker = worker
        self._pid = os.getpid()
        self.pool_is_green = bool(worker.pool.is_green)
        self.admits_in_pool = admits_in_pool(worker.pool)
        self.has_semaphore = worker.process_task == worker._process_task_sem  # noqa: SLF001
        settings = self.settings
        store = open_store(settings.store)
        self.gate = SyncJobGate(
            store,
            settings.name,
            self.waking.wake,
            claim=settings.claim,
            on_store_error="admit" if settings.on_store_error == "admit" else "raise",
            label=str(worker.hostname),
        )
        face = self.gate.store.sync_face()
        remember = settings.remember
        lasts = self.visibility + _MARGIN if remember is None else float(remember)
        self.marks = Marks(face, settings.name, lasts)
        self.waiting_room = WaitingRoom(face, self._sweeps.add, self._end_waiting)
        self.revocations = Revocations(face, settings.name, _celery.REVOKE_EXPIRES)
        self.errands.start()
        self._sweeps.start()
        self._sweeps.add(self._learn_revocations)
        self._sweeps.add(self._sweep)
        atexit.register(self._at_exit)

    def serve(self, consumer: Any) -> None:
        """Stand before the pool of a consumer that is being made."""
        self.consumer = consumer
        consumer.on_task_request = Reception(self, consumer)

    def connected(self, consumer: Any) -> None:
        """Use the new connection of the consumer."""
        self.connection += 1
        self.aside.forget_all()
        self.endings.reconnected()
        self.waking.hand_on()
        self.post.connect(consumer)
        if self.has_semaphore and consumer.hub is not None:
            if self._looking is not None:  # some releases of Celery keep it, others do not
                self._looking.cancel()
            self._looking = consumer.hub.call_repeatedly(_LOOK_EVERY, self._look_for_dead_children)

    def learn(self, task: Any, consumer: Any) -> None:
        """Prepare for a task.

        Raises:
            ConfigurationError: this worker cannot keep its limits.
        """
        from limiter_celery._request import LimitedRequest  # noqa: PLC0415  # it needs the porter

        limits = limits_of_task(task)
        check_arguments(task, limits)
        resolutions = {limit.on_conflict for limit in limits}
        if ConflictResolution.CANCEL_RUNNING in resolutions and not can_terminate(consumer.pool):
            raise ConfigurationError(
                f"the task {task.name} has CANCEL_RUNNING, but this worker's pool cannot stop a "
                "task that runs: use prefork, gevent or eventlet"
            )
        self.classes[task.name] = _celery.create_request_cls(
            LimitedRequest,
            task,
            consumer.pool,
            consumer.hostname,
            consumer.event_dispatcher,
            app=self.app,
        )

    def revoked(self, task_ids: set[str]) -> None:
        """Have waiting tasks end that were revoked."""
        self.errands.add(lambda: self.waiting_room.revoke(task_ids))
        for task_id in task_ids:
            self._note(partial(self.revocations.note, task_id))

    def revoked_by_stamps(self, stamps: Stamps) -> None:
        """Have waiting tasks end that were revoked by headers with which they are stamped."""
        self.errands.add(lambda: self.waiting_room.revoke_by_stamps(stamps))
        self._note(partial(self.revocations.note_stamps, stamps))

    def _note(self, note: Callable[[], None]) -> None:
        def tried() -> None:
            try:
                note()
            except StoreError as error:
                logger.warning("a revoke is not noted for workers that begin later: %s", error)

        self._sweeps.add(tried)

    def _learn_revocations(self) -> None:
        try:
            self.revocations.learn()
        except StoreError:  # said once, by the gate
            if not self.closing:
                self._sweeps.add(self._learn_revocations, _LEARN_AGAIN)

    def stop_waking(self) -> None:
        """Wake no more tasks in this worker: it is about to end."""
        if not self.closing:
            self.closing = True
            if self.worker is not None:
                self._sweeps.add(self.gate.leave)
            self.waking.close()
            self.post.deliver()

    def close(self) -> None:
        """End."""
        self.stop_waking()
        self.errands.stop(5.0)
        self._sweeps.stop(1.0)
        if self.worker is not None:
            self.gate.close()

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # else it is a child of the pool
            self.stop_waking()
            self.endings.release_all()
            self.errands.stop(5.0)

    def _look_for_dead_children(self) -> None:
        """Have the pool see children that died, whose tasks hold slots.

        It looks when a child's pipe closes. If the system says only a moment later that the child
        is gone, the pool looks again after five seconds.
        """
        try:
            if self.endings.holds_any():
                self.worker.pool.maintain_pool()
        except Exception:  # the worker must not end for it
            logger.exception("could not look after the pool")

    def _end_waiting(self, ticket: str, payload: bytes, reason: str) -> None:
        self.errands.add(lambda: self.waking.refuse(ticket, unpack(payload), reason))

    def _sweep(self) -> None:
        try:
            with self.waking.own_step():
                self.gate.sweep()
        except StoreError:  # said once, by the gate
            pass
        finally:
            if not self.closing:
                self._sweeps.add(self._sweep, jitter.uniform(0.8, 1.2))
