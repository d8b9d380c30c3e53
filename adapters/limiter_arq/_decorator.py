"""`@limited`: which limits a job's function is under, and what a strategy sees of a job.

The decorator wraps the function. So a worker of arq that is no `LimitedWorker` refuses to run it,
and does not run it without a limit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast

from arq.worker import Worker

from limiter_arq._job_run import current_run
from limiter_core import ArgumentView, ConcurrencyLimit, ConfigurationError
from limiter_core.arguments import binder_of
from limiter_core.brief import brief
from limiter_core.jobs import check_argument_names, check_limits

P = ParamSpec("P")
R = TypeVar("R")

_ATTRIBUTE = "__concurrency_limits__"
_NEEDS_LIMITED_WORKER = (
    "under a concurrency limit, which this worker ignores: "
    "run it with `python -m limiter_arq`, or with a LimitedWorker"
)


def limited(
    *limits: ConcurrencyLimit,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Put a job's function under limits; several are taken all or none.

    The body finds its lease in `ctx["lease"]` (for its `fencing_token`, or `check()`). Called
    directly, as in a unit test, the function runs without a limit; in a worker that is no
    `LimitedWorker` it raises.

    Args:
        limits: one or more. An argument's name means a parameter of the function; `ctx` is none.

    Raises:
        ConfigurationError: no limits, something that is none, no coroutine function, or an
            argument that it does not have.
    """
    checked = check_limits(limits, "limited()")

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"arq runs coroutine functions, and {brief(function)} is none")
        check_argument_names(checked, function, hidden=_context_parameter(function))

        @functools.wraps(function)
        async def limited_function(*args: P.args, **kwargs: P.kwargs) -> R:
            run = current_run.get()
            if run is None:
                _check_is_direct_call(function, args)
            elif not run.begun:
                run.begun = True
                return await run.run_body(function, args, kwargs)
            return await function(*args, **kwargs)

        setattr(limited_function, _ATTRIBUTE, (*checked, *limits_of(function)))
        return limited_function

    return decorate


def limits_of(function: Any) -> tuple[ConcurrencyLimit, ...]:
    """Return the limits that a function was put under; looks through `functools.partial`."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    found: tuple[ConcurrencyLimit, ...] = getattr(function, _ATTRIBUTE, ())
    return found


def check_other_worker(worker: Worker) -> None:
    """Refuse a worker that is no `LimitedWorker` and has functions under limits.

    Else it would fetch each of their jobs, and each would fail for good.

    Raises:
        ConfigurationError: it has some; says which.
    """
    names = [name for name, each in worker.functions.items() if limits_of(each.coroutine)]
    if names:
        raise ConfigurationError(f"{', '.join(sorted(names))}: {_NEEDS_LIMITED_WORKER}")


def _check_is_direct_call(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    context: Any = args[0] if args else None
    if isinstance(context, dict) and "job_id" in context:
        raise RuntimeError(f"{function.__qualname__} is {_NEEDS_LIMITED_WORKER}")


def _context_parameter(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the name of the parameter that gets arq's `ctx`, and nothing else."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    return (first.name,)


_CTX = object()


def view_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentView:
    """Return what strategies see of a job: the arguments by name, without arq's `ctx`.

    Raises:
        TypeError: the arguments do not fit the function.
    """
    view = binder_of(function)((_CTX, *args), kwargs)
    arguments: dict[str, Any] = {}
    for name in view:
        value: Any = view[name]
        if value is _CTX:
            continue
        if type(value) is tuple and any(each is _CTX for each in cast("tuple[Any]", value)):
            value = tuple(each for each in cast("tuple[Any]", value) if each is not _CTX)
        arguments[name] = value
    return ArgumentView(arguments, view.function_name)
