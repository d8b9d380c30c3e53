"""`LimitedRequest`: the request of a limited task, in the worker's main process."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from limiter_celery import _celery
from limiter_celery._admission import Admission
from limiter_celery._delivery import Delivery, delivery_of
from limiter_celery._parked_message import origin_of
from limiter_celery._pools import admits_in_pool
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._revocations import Revocations, stamps_of
from limiter_celery._worker_state import WorkerState
from limiter_core.system_clock import system_clock as time

_NOT_ADMITTED = object()
"""The result of a task that was not admitted in its thread."""


@dataclass(kw_only=True, eq=False)
class RequestParts:
    """What the requests of one worker use."""

    admission: Admission
    releases: ReleaseTracker
    revocations: Revocations
    worker: WorkerState


def _admit(execute: Any) -> Any:
    @functools.wraps(execute)
    def execute_using_pool(self: LimitedRequest, pool: Any, **kwargs: Any) -> Any:
        if admits_in_pool(pool):
            if self.delivery.handed_over:
                raise _celery.TaskRevokedError(self.id)
            admitting = _AdmittingPool(self, pool)
            # Of the base: that of `create_request_cls` uses no other pool than the worker's.
            return _celery.Request.execute_using_pool(self, admitting, **kwargs)
        self.parts.admission.admit(self)
        if not self.delivery.submit():
            raise _celery.TaskRevokedError(self.id)
        return execute(self, pool, **kwargs)

    return execute_using_pool


def _release(on_success: Any) -> Any:
    @functools.wraps(on_success)
    def release(self: LimitedRequest, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        try:
            return on_success(self, failed__retval__runtime, **kwargs)
        finally:
            is_stopping = isinstance(sys.exc_info()[1], SystemExit | KeyboardInterrupt)
            self.parts.releases.on_end(self, completed=not is_stopping)

    return release


class _AdmittingPool:
    """A pool in whose thread one request is admitted before its body runs."""

    def __init__(self, request: LimitedRequest, pool: Any) -> None:
        self._request = request
        self._pool = pool
        self._pid: Any = None
        self._accepted_at = time.monotonic()

    def apply_async(self, trace: Any, *, args: tuple[Any, ...], **options: Any) -> Any:
        options.update(accept_callback=self._on_accepted, callback=self._on_result)
        return self._pool.apply_async(self._run, args=(trace, args), **options)

    def _on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note which thread it is; the task is accepted once it is admitted."""
        self._pid, self._accepted_at = pid, time_accepted

    def _run(self, trace: Any, args: tuple[Any, ...]) -> Any:
        request = self._request
        try:
            request.parts.admission.admit(request)
        except _celery.TaskRevokedError:
            return _NOT_ADMITTED
        if not request.delivery.submit():
            return _NOT_ADMITTED
        try:
            request.on_accepted(self._pid, self._accepted_at)
            return trace(*args)
        except BaseException:
            # Celery's tracer reports what a body raises: this is a stop from outside.
            request.parts.releases.on_end(request, completed=False)
            raise

    def _on_result(self, result: Any) -> None:
        if result is _NOT_ADMITTED:
            return
        if isinstance(result, tuple):
            self._request.on_success(result)
        else:
            self._request.on_failure(result)


class LimitedRequest(_celery.Request):
    """A request that is admitted before its body runs, and whose slot is released on every outcome.

    Celery makes a subclass of it for each task (`create_request_cls`), whose `execute_using_pool`
    and `on_success` never call what they override. So both are wrapped when it is made.
    """

    parts: ClassVar[RequestParts]
    delivery: Delivery

    @classmethod
    def using(cls, parts: RequestParts) -> type[LimitedRequest]:
        """Return the class of the requests that use these parts."""
        return type("LimitedRequest", (cls,), {"parts": parts})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("execute_using_pool", _admit), ("on_success", _release)):
            if name in cls.__dict__:
                setattr(cls, name, wrap(cls.__dict__[name]))

    def __init__(self, message: Any, **options: Any) -> None:
        origin = origin_of(message.headers or {})
        if origin is not None and origin.properties:
            message.properties.update(origin.properties)
        super().__init__(message, **options)
        if origin is not None:
            # A retry is sent to where its task came from: that is not the queue of granted tasks.
            self.set_destination(origin.exchange, origin.routing_key)
        self.delivery = delivery_of(self, origin, self.parts.worker.connection)

    # For requests that were made of this class itself.
    execute_using_pool = _admit(_celery.Request.execute_using_pool)
    on_success = _release(_celery.Request.on_success)

    def revoked(self) -> bool:
        """Whether the task was revoked: Celery knows of it, or the store does."""
        if super().revoked():
            return True
        delivery = self.delivery
        if not (delivery.waited or delivery.is_local):
            return False
        waited_since = delivery.order / 1e6
        if self.parts.revocations.cover(self.id, stamps_of(self.stamps), waited_since):
            self.announce_revoked("revoked")
            return True
        return False

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note that the body started."""
        self.parts.releases.on_start(self)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Release when the body ended: an exception, a retry, a killed child."""
        try:
            return super().on_failure(exc_info, *args, **kwargs)
        finally:
            # At a hard time limit, Celery comes here before it kills the child.
            is_alive = isinstance(exc_info.exception, _celery.TimeLimitExceeded)
            self.parts.releases.on_end(self, in_main_loop=is_alive)

    def on_timeout(self, soft: bool, timeout: Any) -> None:
        """Release at a hard time limit, in pools that report no other end."""
        super().on_timeout(soft, timeout)
        if not soft and self.parts.releases.pool.is_green:
            self.parts.releases.on_end(self)

    def reject(self, requeue: bool = False) -> None:
        """Note that the broker has the message again."""
        if requeue and not self.acknowledged:
            self.delivery.requeued = True
        super().reject(requeue)

    def revoked_reason(self, reason: str) -> str:
        """Return why a body was terminated whose lease is lost: Celery says that it was."""
        return self.delivery.loss or reason

    def on_revoked(self, *, terminated: bool) -> None:
        """Release, unless the body may still run: `on_failure` is called when it ended."""
        if not terminated:
            self.parts.releases.on_end(self)
