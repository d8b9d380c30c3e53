"""How a task comes from the worker's main thread into its pool.

With prefork, `execute_using_pool` is called when a process is free, and solo has one thread for
all: the task is admitted there. The other pools take any number of tasks, and keep them until a
thread is free: so the task is admitted in the pool's thread, or it would hold a slot while it
waits for a thread.
"""

from __future__ import annotations

import weakref
from typing import Any

from limiter_celery import _celery
from limiter_core.system_clock import system_clock as time

_LEFT = object()
"""The result of a task that was not admitted: for nobody."""

_ADMIT_IN_MAIN = ("celery.concurrency.prefork", "celery.concurrency.solo")


def admits_in_pool(pool: Any) -> bool:
    """Whether tasks are admitted in the pool's threads."""
    return type(pool).__module__ not in _ADMIT_IN_MAIN


def can_terminate(pool: Any) -> bool:
    """Whether the pool can end a body that runs."""
    module = type(pool).__module__.rpartition(".")[2]
    return module not in ("thread", "solo")


def submit(request: Any, pool: Any) -> Any:
    """Give a request to the pool, to be admitted there; as `Request.execute_using_pool` does it.

    Raises:
        TaskRevokedError: it is not to run.
    """
    if request.revoked() or request.passage.overtaken:
        raise _celery.TaskRevokedError(request.id)
    time_limit, soft_time_limit = request.time_limits
    task = request.task
    run = _Run(request)
    result = pool.apply_async(
        run,
        args=(
            _celery.tracer_of(request.app),
            (
                request.type,
                request.id,
                request.request_dict,
                request.body,
                request.content_type,
                request.content_encoding,
            ),
        ),
        accept_callback=run.picked_up,
        timeout_callback=request.on_timeout,
        callback=run.ended,
        error_callback=request.on_failure,
        soft_timeout=soft_time_limit or task.soft_time_limit,
        timeout=time_limit or task.time_limit,
        correlation_id=request.id,
    )
    request._apply_result = None if result is None else weakref.ref(result)  # noqa: SLF001
    return result


class _Run:
    """One request in a thread of the pool."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._pid: Any = None
        self._time = time.monotonic()

    def picked_up(self, pid: Any, time_accepted: float) -> None:
        """Note which thread it is; that the task is accepted is said once it is admitted."""
        self._pid, self._time = pid, time_accepted

    def __call__(self, trace: Any, args: tuple[Any, ...]) -> Any:
        request = self._request
        try:
            request.porter.admission.enter(request)
        except _celery.TaskRevokedError:
            return _LEFT
        if not request.passage.submit():
            return _LEFT
        try:
            request.on_accepted(self._pid, self._time)
            return trace(*args)
        except BaseException:
            # Celery's tracer reports what a body raises: this is a stop from outside.
            request.porter.endings.ended(request, done=False)
            raise

    def ended(self, result: Any) -> None:
        """Take the result."""
        if result is _LEFT:
            return
        if isinstance(result, tuple):
            self._request.on_success(result)
        else:
            self._request.on_failure(result)
