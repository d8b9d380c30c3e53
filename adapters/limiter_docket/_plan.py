"""Which limits a task has, and what they see of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Any, TypeVar, cast

from docket import Cooldown, Debounce, Execution, RateLimit, Worker
from docket.dependencies import (
    Dependency,
    _Depends,  # pyright: ignore[reportPrivateUsage]
    get_annotation_dependencies,
    get_dependency_parameters,
)

from limiter_core.arguments import ArgumentView, binder_of
from limiter_core.errors import ConfigurationError

L = TypeVar("L")


def view_of(execution: Execution) -> ArgumentView:
    """Return the arguments of a task, defaults included, dependencies left out.

    Raises:
        TypeError: they do not fit the function.
    """
    view = binder_of(execution.function)(execution.args, execution.kwargs)
    arguments = {name: view[name] for name in view if not isinstance(view[name], Dependency)}
    return ArgumentView(arguments, execution.function_name)


def limits_of(
    kind: type[L], function: Callable[..., Any], worker: Worker, given: Container[str] = ()
) -> list[L]:
    """Return the limits of a function and its worker, but not of parameters that are given.

    Raises:
        ConfigurationError: beside them is a dependency that would lose a task while it waits.
    """
    of_worker = list(worker.dependencies.values())
    found = [*of_worker, *_dependencies(function, given)]
    limits = [each for each in found if isinstance(each, kind)]
    for each in found if limits else ():
        rate = isinstance(each, RateLimit)
        if isinstance(each, Cooldown | Debounce) or (rate and (each.drop or each in of_worker)):
            raise ConfigurationError(
                f"{getattr(function, '__name__', function)} has a {type(each).__name__} beside a "
                "ConcurrencyLimit: it would take the task that comes back from waiting for another "
                "one, and drop it. Put one of the two on a task that adds the other"
            )
    return limits


def _dependencies(function: Callable[..., Any], given: Container[str]) -> Iterator[Any]:
    for name, dependency in get_dependency_parameters(function).items():
        if name not in given:
            yield from _with_its_own(dependency)
    for name, dependencies in get_annotation_dependencies(function).items():
        for each in dependencies:
            yield each.bind_to_parameter(name, None)


def _with_its_own(dependency: object) -> Iterator[Any]:
    yield dependency
    if isinstance(dependency, _Depends):
        depends = cast(Any, dependency)
        own = {**get_dependency_parameters(depends.factory), **depends.bindings}
        for each in own.values():
            yield from _with_its_own(each)
