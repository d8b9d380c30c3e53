"""`LimitedRequest`: a delivery of a limited task, in the worker's main process.

Celery makes a subclass of it for each task (`create_request_cls`), whose `execute_using_pool` and
`on_success` never call what they override. So both are wrapped when that subclass is made.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from limiter_celery import _celery
from limiter_celery._delivery import Passage
from limiter_celery._parked_message import origin_of
from limiter_celery._pools import submit
from limiter_celery._revocations import stamps_of
from limiter_celery._settings import settings_of
from limiter_core import ConfigurationError

__all__ = ("LimitedRequest",)


class LimitedRequest(_celery.Request):
    """A request that is admitted before it reaches the pool, and let go of when its body ended."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("execute_using_pool", _admitted), ("on_success", _released)):
            if name in cls.__dict__:
                setattr(cls, name, wrap(cls.__dict__[name]))

    def __init__(self, message: Any, **options: Any) -> None:
        origin = origin_of(message.headers or {})
        if origin is not None and origin.properties:
            message.properties.update(origin.properties)
        super().__init__(message, **options)
        if origin is not None:
            # A retry is sent to where its task came from: that is not our own queue.
            self._delivery_info["exchange"] = origin.exchange
            self._delivery_info["routing_key"] = origin.routing_key
        self.passage = Passage(self, origin, self.porter.connection)

    @property
    def porter(self) -> Any:
        """Who keeps the limits in this process.

        Raises:
            ConfigurationError: nobody does.
        """
        settings = settings_of(self._app)
        if settings is None or settings.porter is None:
            raise ConfigurationError(f"no limits are installed for {self.name}")
        return settings.porter

    # The bases of what `create_request_cls` overrides, for requests that were made of this class.
    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        """Admit the task, then run it."""
        return _admitted(_celery.Request.execute_using_pool)(self, pool, **kwargs)

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        """Release when the body ended."""
        return _released(_celery.Request.on_success)(self, failed__retval__runtime, **kwargs)

    def revoked(self) -> bool:
        """Whether the task is not to run: Celery knows that it was revoked, or the store does."""
        if super().revoked():
            return True
        passage = self.passage
        if not (passage.woken or passage.local):
            return False
        waits_since = passage.order / 1e6
        if self.porter.revocations.cover(self.id, stamps_of(self.stamps), waits_since):
            self._announce_revoked("revoked", False, None, False)
            return True
        return False

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note that the body began."""
        self.porter.endings.began(self)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Release when the body ended: an exception, a retry, a killed child."""
        try:
            return super().on_failure(exc_info, *args, **kwargs)
        finally:
            hard = isinstance(exc_info.exception, _celery.TimeLimitExceeded)
            # At a hard time limit, Celery comes here before it kills the child.
            self.porter.endings.ended(self, soon=hard)

    def on_timeout(self, soft: bool, timeout: Any) -> None:
        """Release at a hard time limit, in pools that say no more of it."""
        super().on_timeout(soft, timeout)
        if not soft and self.porter.pool_is_green:
            self.porter.endings.ended(self)

    def reject(self, requeue: bool = False) -> None:
        """Note that the broker has the message again."""
        if requeue and not self.acknowledged:
            self.passage.requeued = True
        super().reject(requeue)

    def _announce_revoked(self, reason: Any, terminated: bool, signum: Any, expired: bool) -> None:
        super()._announce_revoked(reason, terminated, signum, expired)
        if not terminated:  # else its body may still run: `on_failure` comes when it ended
            self.porter.endings.ended(self)


def _admitted(execute: Any) -> Any:
    @functools.wraps(execute)
    def execute_using_pool(self: Any, pool: Any, **kwargs: Any) -> Any:
        if self.porter.admits_in_pool:
            return submit(self, pool)
        self.porter.admission.enter(self)
        if not self.passage.submit():
            raise _celery.TaskRevokedError(self.id)
        return execute(self, pool, **kwargs)

    return execute_using_pool


def _released(on_success: Any) -> Any:
    @functools.wraps(on_success)
    def release(self: Any, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        try:
            return on_success(self, failed__retval__runtime, **kwargs)
        finally:
            stopping = isinstance(sys.exc_info()[1], SystemExit | KeyboardInterrupt)
            self.porter.endings.ended(self, done=not stopping)

    return release
