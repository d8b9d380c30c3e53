"""`install`: makes an app's workers keep the limits of its tasks."""

from __future__ import annotations

import weakref
from typing import Any, Literal

from limiter_celery import _celery
from limiter_celery._queues import consume_granted
from limiter_celery._task import LimitedTask
from limiter_celery._worker_limiter import Settings, WorkerLimiter
from limiter_core import ConfigurationError
from limiter_core.jobs import CLAIM
from limiter_core.store import Store

__all__ = ("install",)

_settings: weakref.WeakKeyDictionary[Any, Settings] = weakref.WeakKeyDictionary()
_limiters: weakref.WeakKeyDictionary[Any, WorkerLimiter] = weakref.WeakKeyDictionary()


def install(
    app: Any,
    store: str | Store,
    *,
    name: str | None = None,
    claim: float = CLAIM,
    on_store_error: Literal["raise", "admit"] = "raise",
    remember: float | None = None,
) -> None:
    """Have the workers of an app keep the limits of its `LimitedTask`s.

    Call it where the app is made. Nothing is connected, and in a producer nothing happens at all.

    Args:
        app: the Celery app.
        store: a store, or its URL, such as "redis://localhost/2". Waiting tasks live there.
        name: names the workers that run these tasks; those that give the same name wake each
            other's. The default is made of the app's own name.
        claim: seconds that a woken task has to reach a worker before its slot goes to the next.
        on_store_error: what happens while the store cannot be reached: "raise" keeps the tasks
            until it is back, "admit" runs them as if there were no limits.
        remember: seconds for which the end of a task that had to wait is remembered, so that a
            copy of its message that the broker delivers late is not run; 0 for not at all. The
            default is the broker's visibility timeout and ten minutes.
    """
    app = _celery.without_proxy(app)
    if app in _settings:
        raise ConfigurationError("limits are installed in this app already")
    name = name or (f"celery:{app.main}" if app.main else "celery")
    _settings[app] = Settings(store, name, claim, on_store_error, remember)
    app.steps["worker"].add(LimiterStep)
    app.steps["consumer"].add(LimiterConsumerStep)


class LimiterStep(_celery.StartStopStep):
    """The step of a worker: its limiter, which lives as long as the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        app = _celery.without_proxy(worker.app)
        consume_granted(app, lambda message: _limiters[app].on_message(message))  # noqa: PLW0108  (it is made later)
        self._limiter: WorkerLimiter | None = None

    def start(self, worker: Any) -> None:
        """Start, before the first message comes."""
        app = _celery.without_proxy(worker.app)
        _check_bases(app)
        if app in _limiters:  # a second worker in one process, as in tests
            _limiters[app].close()
        limiter = WorkerLimiter(worker, _settings[app])
        _limiters[app] = self._limiter = worker.concurrency_limiter = limiter
        limiter.start()

    def close(self, worker: Any) -> None:  # noqa: ARG002
        """Have other workers run the tasks that wait: this one is about to end."""
        if self._limiter is not None:
            self._limiter.stop_fetching()

    def stop(self, worker: Any) -> None:
        """Go on until the process ends: bodies may still run, and hand their slots over."""

    terminate = stop


class LimiterConsumerStep(_celery.StartStopStep):
    """The step of a worker's consumer: starts anew with each connection to the broker."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        """Have work that comes from other threads done in the main loop of this connection."""
        consumer.controller.concurrency_limiter.on_connection(consumer)

    def stop(self, consumer: Any) -> None:
        """Do nothing: the limiter goes on."""

    terminate = stop


def _check_bases(app: Any) -> None:
    """Check that each task with `limits` is a `LimitedTask`.

    Raises:
        ConfigurationError: there is such a task; its limits would be ignored.
    """
    for task in app.tasks.values():
        if getattr(task, "limits", None) and not isinstance(task, LimitedTask):
            raise ConfigurationError(
                f"the task {task.name} has limits=..., but no base=LimitedTask: "
                "they would be ignored"
            )
