"""The admission hook of the consumer: on the way of each received task to the pool."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from limiter_celery import _celery
from limiter_celery._admission import Admission
from limiter_celery._delivery import Delivery
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_message import parked_message_of
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._scheduler import Scheduler

logger = logging.getLogger("limiter")


@dataclass(kw_only=True, eq=False)
class AdmissionHook:
    """Takes the place of `consumer.on_task_request`.

    A granted task claims its slot when it is received, not only when a process is free: else the
    slot would be offered again and again to a task that already waits for a process here. It goes
    first among those that wait for one; if none is free in time, the task is published again, for
    another worker.
    """

    app: Any
    process: Callable[[Any], Any]  # what `consumer.on_task_request` was
    timer: Any
    semaphore: Any  # in which tasks wait for a free process; None if this pool has none
    claim: float  # seconds that a task may wait for a process with its slot
    admission: Admission
    releases: ReleaseTracker
    main_loop: MainLoop
    scheduler: Scheduler

    def __call__(self, request: Any) -> Any:
        """Process a request that was received."""
        delivery: Delivery | None = getattr(request, "delivery", None)
        is_granted = delivery is not None and delivery.waited and not delivery.is_local
        if delivery is None or not is_granted or delivery.lease is not None:
            return self.process(request)
        try:
            self.admission.admit(request)
        except _celery.TaskRevokedError:
            return None
        if delivery.lease is not None:
            self._give_back_unless_started(request)
        has_to_wait = self.semaphore is not None and self.semaphore.value <= 0
        result = self.process(request)
        if has_to_wait:
            _celery.move_last_to_front(self.semaphore)
        return result

    def _give_back_unless_started(self, request: Any) -> None:
        reference = weakref.ref(request)

        def check() -> None:
            late = reference()
            if late is None or late.delivery.finished or not late.delivery.hand_over():
                return
            try:
                self.releases.on_end(late, completed=False)
                _celery.state.task_ready(late)
                self.scheduler.call_soon(lambda: self._publish_again(late))
            except Exception:  # the worker must not end for it
                logger.exception("could not hand a task over")

        self.timer.call_after(self.claim, check)

    def _publish_again(self, request: Any) -> None:
        """Publish a task once more, with its slot released, and end this delivery.

        It is not rejected: a quorum queue drops what comes back to it again and again.
        """
        end_delivery = request.acknowledge
        try:
            parked_message_of(request).publish(self.app)
        except Exception as error:  # noqa: BLE001  # of the broker's driver
            logger.warning("could not publish %s again, it is rejected: %r", request.id, error)
            end_delivery = partial(request.reject, requeue=True)
        self.main_loop.call_soon(end_delivery)
