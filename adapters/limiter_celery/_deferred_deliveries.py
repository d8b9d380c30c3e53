"""Deliveries that stay in this worker, unacknowledged, to be tried again later."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from limiter_celery import _celery
from limiter_celery._main_loop import MainLoop
from limiter_celery._worker_state import WorkerState
from limiter_core.jitter import jitter

logger = logging.getLogger("limiter")

_UNCOUNTED = 200
"""Deliveries that do not count against the prefetch; more of them keep the worker from taking
further messages."""


@dataclass(kw_only=True, eq=False)
class DeferredDeliveries:
    """Tries deliveries again.

    The broker has their messages: if it loses this worker, or this connection, it delivers them
    again.
    """

    consumer: Any
    main_loop: MainLoop
    worker: WorkerState
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _count: int = field(default=0, init=False)

    def retry_later(self, request: Any, seconds: float) -> None:
        """Try a delivery again after so many seconds; from any thread."""
        consumer, worker = self.consumer, self.worker
        connection = worker.connection
        with self._lock:
            uncounted = self._count < _UNCOUNTED
            self._count += 1
        _celery.state.reserved_requests.discard(request)

        def wait() -> None:
            if worker.connection != connection:
                return
            if uncounted:
                consumer.qos.increment_eventually()
            consumer.timer.call_after(seconds * jitter.uniform(0.9, 1.1), retry)

        def retry() -> None:
            try:
                if worker.connection != connection or worker.closing:
                    return  # that connection is gone: the broker delivers the message again
                with self._lock:
                    self._count -= 1
                if uncounted:
                    consumer.qos.decrement_eventually()
                _celery.state.task_reserved(request)
                consumer.on_task_request(request)
            except Exception:  # the worker must not end for it
                logger.exception("could not try %s again", request.id)

        self.main_loop.call_soon(wait)

    def forget_all(self) -> None:
        """There is a new connection: the broker delivers the messages again."""
        with self._lock:
            self._count = 0
