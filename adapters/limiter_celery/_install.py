"""`install`: makes an app's workers keep the limits of its tasks."""

from __future__ import annotations

from typing import Any, Literal

from limiter_celery import _celery
from limiter_celery._queues import consume_granted
from limiter_celery._revoke_commands import watch_revokes
from limiter_celery._settings import Settings, note_settings, settings_of, unproxied
from limiter_celery._task import LimitedTask
from limiter_celery._worker_limiter import Porter
from limiter_core import ConfigurationError
from limiter_core.jobs import CLAIM
from limiter_core.store import Store

__all__ = ("install",)


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
    app = unproxied(app)
    if settings_of(app) is not None:
        raise ConfigurationError("limits are installed in this app already")
    name = name or (f"celery:{app.main}" if app.main else "celery")
    note_settings(app, Settings(store, name, claim, on_store_error, remember))
    app.steps["worker"].add(LimiterStep)
    app.steps["consumer"].add(LimiterConsumerStep)


class LimiterStep(_celery.StartStopStep):
    """The worker's part: a porter for as long as the worker's main process lives."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        settings = settings_of(worker.app)
        if settings is None:  # pragma: no cover  # `install` adds both
            raise ConfigurationError("no limits are installed in this app")
        consume_granted(worker.app)
        if settings.porter is not None:  # a second worker in one process, as in tests
            settings.porter.close()
        settings.porter = self._porter = Porter(worker.app, settings)

    def start(self, worker: Any) -> None:
        """Begin; before the first message comes."""
        _refuse_markers_without_base(worker.app)
        self._porter.start(worker)
        watch_revokes(self._porter)

    def close(self, worker: Any) -> None:  # noqa: ARG002
        """Wake no more tasks in this worker: it is about to end."""
        self._porter.stop_waking()

    def stop(self, worker: Any) -> None:
        """Go on until the process ends: bodies may still run, and hand their slots on."""

    terminate = stop


class LimiterConsumerStep(_celery.StartStopStep):
    """The consumer's part: starts anew with each connection to the broker."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        settings = settings_of(consumer.app)
        porter = None if settings is None else settings.porter
        if porter is not None:
            porter.serve(consumer)
        self._porter = porter

    def start(self, consumer: Any) -> None:
        """Have work that comes from other threads done in the event loop of this connection."""
        if self._porter is not None:
            self._porter.connected(consumer)

    def stop(self, consumer: Any) -> None:
        """Nothing; the porter goes on."""

    terminate = stop


def _refuse_markers_without_base(app: Any) -> None:
    """Refuse tasks that say they have limits, but are no `LimitedTask`.

    Raises:
        ConfigurationError: there is such a task; its limits would be ignored.
    """
    for task in app.tasks.values():
        if getattr(task, "limits", None) and not isinstance(task, LimitedTask):
            raise ConfigurationError(
                f"the task {task.name} has limits=..., but no base=LimitedTask: "
                "they would be ignored"
            )
