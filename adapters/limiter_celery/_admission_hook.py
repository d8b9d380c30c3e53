"""Stands before a consumer's way to the pool."""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from limiter_celery import _celery
from limiter_celery._delivery import Passage
from limiter_celery._parked_message import parcel_of

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter

logger = logging.getLogger("limiter")


class Reception:
    """Takes the place of `consumer.on_task_request`.

    A woken task has its slot taken up when it comes in, not only when a process is free: else the
    slot would be offered again, and again, to a task that already waits for a process here. It goes
    first among those that wait for one; if none is free in good time, the task is sent once more,
    for another worker.
    """

    def __init__(self, porter: Porter, consumer: Any) -> None:
        self._porter = porter
        self._consumer = consumer
        self._process = consumer.on_task_request

    def __call__(self, request: Any) -> Any:
        """Process a request that was received."""
        passage: Passage | None = getattr(request, "passage", None)
        if passage is None or passage.local or not passage.woken or passage.lease is not None:
            return self._process(request)
        try:
            self._porter.admission.enter(request)
        except _celery.TaskRevokedError:
            return None
        if passage.lease is not None:
            self._give_back_unless_begun(request)
        semaphore = self._consumer.controller.semaphore
        waits = self._porter.has_semaphore and semaphore.value <= 0
        answer = self._process(request)
        if waits:
            semaphore._waiting.rotate(1)  # noqa: SLF001  # it came last, and goes first
        return answer

    def _give_back_unless_begun(self, request: Any) -> None:
        waiting = weakref.ref(request)

        def look() -> None:
            late = waiting()
            if late is None or late.passage.over or not late.passage.hand_on():
                return
            self._porter.endings.ended(late, done=False)
            _celery.state.task_ready(late)
            self._porter.errands.add(lambda: self._send_again(late))

        def guarded() -> None:
            try:
                look()
            except Exception:  # the worker must not end for it
                logger.exception("could not give a task back")

        self._consumer.timer.call_after(self._porter.settings.claim, guarded)

    def _send_again(self, request: Any) -> None:
        """Send a task once more, with its slot given back, and let go of this delivery.

        It is not rejected: a quorum queue drops what comes back to it again and again.
        """
        letter = request.acknowledge
        try:
            parcel_of(request).send(self._porter.app)
        except Exception as error:  # noqa: BLE001  # of the broker's driver
            logger.warning("could not send %s once more, it is rejected: %r", request.id, error)
            letter = partial(request.reject, requeue=True)
        self._porter.post(letter)
