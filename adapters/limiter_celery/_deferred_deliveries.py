"""Deliveries that wait in this worker, unacknowledged, to be tried again."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from limiter_celery import _celery
from limiter_core.jitter import jitter

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter

logger = logging.getLogger("limiter")

_MOST = 200
"""Deliveries that do not count against the prefetch; more of them keep the worker from taking
further messages."""


class Aside:
    """Keeps messages for a while.

    They are the broker's all the time: if it loses this worker, or this connection, it delivers
    them again.
    """

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._lock = threading.Lock()
        self._count = 0

    def put(self, request: Any, pause: float) -> None:
        """Keep a message, and try it again after so many seconds; from any thread."""
        porter = self._porter
        consumer, connection = porter.consumer, porter.connection
        with self._lock:
            extra = self._count < _MOST
            self._count += 1
        _celery.state.reserved_requests.discard(request)

        def wait() -> None:
            if porter.connection != connection:
                return
            if extra:
                consumer.qos.increment_eventually()  # its place in the prefetch
            consumer.timer.call_after(pause * jitter.uniform(0.9, 1.1), again)

        def again() -> None:
            try:
                if porter.connection != connection or porter.closing:
                    return  # that connection is gone: the broker delivers the message again
                with self._lock:
                    self._count -= 1
                if extra:
                    consumer.qos.decrement_eventually()
                _celery.state.task_reserved(request)
                consumer.on_task_request(request)
            except Exception:  # the worker must not end for it
                logger.exception("could not try %s again", request.id)

        porter.post(wait)

    def forget_all(self) -> None:
        """The connection is a new one: none of them is ours any more."""
        with self._lock:
            self._count = 0
