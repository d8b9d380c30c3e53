"""`LimitedTask`: the base of tasks that have limits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

from limiter_celery import _celery
from limiter_celery._pools import can_terminate
from limiter_core import ConcurrencyLimit, ConfigurationError, ConflictResolution
from limiter_core.arguments import ArgumentView, Binder
from limiter_core.jobs import check_argument_names, check_limits

__all__ = ("LimitedTask", "check_task", "limits_of_task", "view_of")


class LimitedTask(_celery.Task):
    """A task that a worker admits before it runs it::

        @app.task(base=LimitedTask, limits=[ConcurrencyLimit("user_id", max_concurrent=1)])
        def sync(user_id): ...

    Callers see no difference. In the body, `self.request.limiter_fencing_token` (with `bind=True`)
    is the fencing token of the task's slot.

    Attributes:
        limits: a limit, or several that are taken all or none; of the class, or of the task itself.
        abstract: Celery's own: this is a base, and no task.
    """

    abstract = True
    limits: ClassVar[ConcurrencyLimit | Sequence[ConcurrencyLimit]] = ()

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Prepare the task for a worker; Celery calls it.

        Raises:
            ConfigurationError: the worker is not to run the task, as it would ignore its limits.
        """
        # A base of all tasks, `Celery(task_cls=LimitedTask)`, is the base of Celery's own, too.
        if _given_limits(self) != ():
            limiter = getattr(consumer.controller, "concurrency_limiter", None)
            if limiter is None:
                raise ConfigurationError(
                    f"the task {self.name} has limits, but nothing in this worker keeps them: "
                    "call limiter_celery.install(app, store) where the app is made"
                )
            self.Request = limiter.prepare(self)
        return super().start_strategy(app, consumer, **kwargs)


def limits_of_task(task: Any) -> tuple[ConcurrencyLimit, ...]:
    """Return the limits of a task, checked.

    Raises:
        ConfigurationError: there are none, or one of them is no limit.
    """
    return check_limits(_given_limits(task), f"limits= of the task {task.name}")


def _given_limits(task: Any) -> Any:
    """Return what a task was given as its limits: what was set on the task itself comes first."""
    # Not by `task.limits`: Celery binds what stands in the class as if it were a method.
    return task.__dict__.get("limits", task.__class__.limits)


@functools.lru_cache(maxsize=4096)
def _binder(task: Any) -> Binder:
    binder = Binder(task.run)
    binder.name = task.name
    return binder


def check_task(task: Any, pool: Any) -> None:
    """Check that the limits of a task can be kept.

    Raises:
        ConfigurationError: a limit needs an argument that the task does not have (it says which
            there are), or a pool that can stop a body.
    """
    limits = limits_of_task(task)
    check_argument_names(limits, _binder(task))
    resolutions = {limit.on_conflict for limit in limits}
    if ConflictResolution.CANCEL_RUNNING in resolutions and not can_terminate(pool):
        raise ConfigurationError(
            f"the task {task.name} has CANCEL_RUNNING, but this worker's pool cannot stop a "
            "task that runs: use prefork, gevent or eventlet"
        )


def view_of(task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> ArgumentView:
    """Return what strategies see of a call: its arguments, and the task's registered name.

    Raises:
        TypeError: the arguments do not fit the function.
    """
    return _binder(task)(tuple(args), kwargs)
