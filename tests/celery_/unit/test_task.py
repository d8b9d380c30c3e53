"""`LimitedTask` and `install`: what is refused before a worker runs a task."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.concurrency import prefork, thread

from limiter_celery import ConcurrencyLimit, ConflictResolution, LimitedTask, install
from limiter_celery._install import _check_bases, _settings
from limiter_celery._task import check_task, limits_of_task, view_of
from limiter_core import ConfigurationError


def body(user: int, plan: int = 1) -> None:
    """A task that never runs."""


def make_app() -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False)


def test_a_worker_without_install_refuses_to_run_the_task() -> None:
    app = make_app()

    @app.task(base=LimitedTask, limits=[ConcurrencyLimit("user")], shared=False)
    def sync(user: int) -> None: ...

    consumer = SimpleNamespace(controller=object())
    with pytest.raises(ConfigurationError, match=re.escape("install(app, store)")):
        app.tasks[sync.name].start_strategy(app, consumer)


def test_a_task_with_limits_and_without_the_base_is_refused() -> None:
    app = make_app()

    @app.task(limits=[ConcurrencyLimit("user")], name="sync", shared=False)
    def sync(user: int) -> None: ...

    app.finalize()
    with pytest.raises(ConfigurationError, match="no base=LimitedTask"):
        _check_bases(app)


def test_limits_that_are_set_on_the_task_itself_count() -> None:
    """After its decorator, or in the `__init__` of a class: they must not be ignored in silence."""
    app = make_app()

    @app.task(base=LimitedTask, name="decorated", shared=False)
    def decorated(user: int) -> None: ...

    decorated.limits = limit = ConcurrencyLimit("user")

    class Made(LimitedTask):
        name = "made"

        def __init__(self) -> None:
            self.limits = [limit]

        def run(self, user: int) -> None: ...

    app.register_task(Made())
    for name in ("decorated", "made"):
        assert limits_of_task(app.tasks[name]) == (limit,)
        with pytest.raises(ConfigurationError, match=re.escape("install(app, store)")):
            app.tasks[name].start_strategy(app, SimpleNamespace(controller=object()))


@pytest.mark.parametrize("limits", [(), ["user"], None, 3])
def test_limits_that_are_none_are_refused(limits: Any) -> None:
    app = make_app()
    task = app.task(base=LimitedTask, limits=limits, name="sync", shared=False)(body)
    with pytest.raises(ConfigurationError, match="limits= of the task sync needs"):
        limits_of_task(app.tasks[task.name])


def test_a_pool_of_threads_refuses_to_preempt() -> None:
    app = make_app()
    limit = ConcurrencyLimit("user", on_conflict=ConflictResolution.CANCEL_RUNNING)
    task = app.task(base=LimitedTask, limits=limit, name="sync", shared=False)(body)
    with pytest.raises(ConfigurationError, match="cannot stop a task that runs"):
        check_task(app.tasks[task.name], thread.TaskPool(1))
    check_task(app.tasks[task.name], prefork.TaskPool(1))


@pytest.mark.parametrize("by", ["usr", "self", ["user", "usr"], "usr.name"])
def test_an_argument_that_the_task_does_not_have_is_refused_when_the_worker_starts(by: Any) -> None:
    app = make_app()

    @app.task(bind=True, base=LimitedTask, limits=ConcurrencyLimit(by), name="sync", shared=False)
    def sync(self: Any, user: int, plan: int = 1) -> None: ...

    with pytest.raises(ConfigurationError, match="sync does not have; there are: user, plan"):
        check_task(app.tasks["sync"], prefork.TaskPool(1))


def test_installing_twice_is_refused_and_a_producer_connects_to_nothing() -> None:
    app = make_app()
    install(app, "redis://nowhere.invalid:1/0")
    with pytest.raises(ConfigurationError, match="already"):
        install(app, "memory://")


def test_names_tell_apps_apart() -> None:
    app, other = make_app(), Celery("other", set_as_current=False)
    install(app, "memory://")
    install(other, "memory://", name="celery:shop")
    assert [_settings[each].name for each in (app, other)] == ["celery:shop", "celery:shop"]


def test_strategies_see_arguments_by_name() -> None:
    app = make_app()

    @app.task(
        bind=True, base=LimitedTask, limits=ConcurrencyLimit("user"), name="a.b", shared=False
    )
    def sync(self: Any, user: int, region: str = "eu", **more: Any) -> None: ...

    task = app.tasks["a.b"]
    by_position, by_name = view_of(task, [1], {}), view_of(task, [], {"user": 1, "x": 2})
    assert (by_position["user"], by_position["region"]) == (1, "eu")
    assert (by_name["user"], by_name["x"]) == (1, 2)
    assert by_name.function_name == "a.b"
    with pytest.raises(TypeError):
        view_of(task, [1, 2, 3], {})


def test_limits_and_priority_functions_are_no_methods() -> None:
    app = make_app()
    limit = ConcurrencyLimit("user", lambda call: call["plan"])
    task = app.task(base=LimitedTask, limits=limit, name="sync", shared=False)(body)
    assert limits_of_task(app.tasks[task.name]) == (limit,)
