"""The worker's pool: what it can do, and how its dead children are noticed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("limiter")

_CHECK_EVERY = 0.25
_ADMIT_IN_MAIN_THREAD = ("celery.concurrency.prefork", "celery.concurrency.solo")


def admits_in_pool(pool: Any) -> bool:
    """Whether tasks are admitted in the pool's threads.

    With prefork, a task comes to the pool when a process is free, and solo has one thread for all:
    the task is admitted in the main thread. The other pools take any number of tasks, and keep them
    until a thread is free: so the task is admitted in that thread, or it would hold a slot while it
    waits for one.
    """
    return type(pool).__module__ not in _ADMIT_IN_MAIN_THREAD


def can_terminate(pool: Any) -> bool:
    """Whether the pool can end a body that runs."""
    module = type(pool).__module__.rpartition(".")[2]
    return module not in ("thread", "solo")


class DeadChildCheck:
    """Has the pool look for children that died, or ended, while their tasks hold slots.

    The pool looks when the pipe of a child closes. If the system reports only a moment later that
    the child is gone, the pool looks again after five seconds. So long a task would wait that was
    given to a child which had just run its last one (`worker_max_tasks_per_child`).

    Args:
        pool: of processes.
        is_needed: whether any task holds a slot, or is about to.
    """

    def __init__(self, pool: Any, is_needed: Callable[[], bool]) -> None:
        self._pool = pool
        self._is_needed = is_needed
        self._timer: Any = None

    def connect(self, hub: Any) -> None:
        """Look again and again; to be called for each connection to the broker."""
        if self._timer is not None:  # some releases of Celery keep the timers of the last one
            self._timer.cancel()
        self._timer = hub.call_repeatedly(_CHECK_EVERY, self._check)

    def _check(self) -> None:
        try:
            if self._is_needed():
                self._pool.maintain_pool()
        except Exception:  # the worker must not end for it
            logger.exception("could not look for dead children of the pool")
