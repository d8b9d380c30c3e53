"""`@limited`: which limits a job's function is under, and what a strategy sees of a job.

The marker wraps the function, so that a plain arq worker, which knows nothing of limits, refuses
to run it instead of running it without any.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

from arq.worker import JobExecutionFailed

from limiter_core import ArgumentView, ConcurrencyLimit, ConfigurationError, Lease, LeaseLost
from limiter_core.arguments import binder_of
from limiter_core.jobs import check_argument_names
from limiter_core.requests import Loss

P = ParamSpec("P")
R = TypeVar("R")

_MARK = "__concurrency_limits__"

FINAL = frozenset({Loss.EVICTED, Loss.OVERRAN})
"""Losses after which a job is not run again: an operator, or its own `max_hold`, ended it."""


class Run:
    """One run of a job in a `LimitedWorker`: known to the worker, and to the marker in the body.

    Attributes:
        job_id: arq's.
        score: the job's place in arq's queue, in milliseconds since the epoch.
        lease: what was granted; None for a job without limits.
        refusal: why the body must not run although arq starts it.
        loss: why the lease is lost, None while it is not.
        settled: whether a job that does not run now was parked or finished.
        begun: whether the job's function was called.
        over: whether it ended, and the slots are on their way back.
        finishing: whether arq notes the job's end.
        on_over: called once, when the body is over.
        given_back: the task that gives the slots back.
    """

    __slots__ = (
        "begun",
        "finishing",
        "given_back",
        "job_id",
        "lease",
        "loss",
        "on_over",
        "over",
        "refusal",
        "score",
        "settled",
    )

    def __init__(self, job_id: str, score: int) -> None:
        self.job_id = job_id
        self.score = score
        self.lease: Lease | None = None
        self.refusal: Exception | None = None
        self.loss: Loss | None = None
        self.settled = self.begun = self.over = self.finishing = False
        self.on_over: Callable[[Run], object] | None = None
        self.given_back: asyncio.Task[None] | None = None

    def end_body(self) -> None:
        """Note that the body is over: from now on its slots are not needed."""
        if not self.over:
            self.over = True
            if self.on_over is not None:
                self.on_over(self)


current: ContextVar[Run | None] = ContextVar("limiter_arq_run", default=None)
"""The run that the running code belongs to; None outside of a `LimitedWorker`."""


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
    for limit in limits:
        if not isinstance(cast(object, limit), ConcurrencyLimit):
            raise ConfigurationError(f"limited() takes ConcurrencyLimits, got {limit!r}")
    if not limits:
        raise ConfigurationError("limited() needs a ConcurrencyLimit at the least")

    def mark(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"arq runs coroutine functions, and {function!r} is none")
        check_argument_names(limits, function, hidden=_context_of(function))

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            run = current.get()
            if run is None:
                _refuse_without_worker(function, args)
            elif not run.begun:
                run.begun = True
                return await _run_job(run, function, args, kwargs)
            return await function(*args, **kwargs)

        setattr(guarded, _MARK, (*limits, *limits_of(function)))
        return guarded

    return mark


def limits_of(function: Any) -> tuple[ConcurrencyLimit, ...]:
    """Return the limits that a function was marked with; looks through `functools.partial`."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    found: tuple[ConcurrencyLimit, ...] = getattr(function, _MARK, ())
    return found


def _context_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the name of the parameter that arq's `ctx` lands in, and nothing else does."""
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


def _refuse_without_worker(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    context: Any = args[0] if args else None
    if isinstance(context, dict) and "job_id" in context:
        raise RuntimeError(
            f"{function.__qualname__} is under a concurrency limit, which this worker does not "
            "know of: run it with `python -m limiter_arq`, or with a LimitedWorker"
        )


async def _run_job(
    run: Run, function: Callable[..., Awaitable[R]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> R:
    """Run the body of a job that was admitted."""
    if run.refusal is not None:
        # The call says it best. If it can be made in spite of all (by way of a decorator that
        # changes the arguments), the limit could not see them, and it is not run without.
        coroutine: Any = function(*args, **kwargs)
        coroutine.close()
        raise run.refusal
    if run.lease is not None:
        context: Any = args[0] if args else None
        if isinstance(context, dict):  # arq's own, made for this run
            context["lease"] = run.lease
    try:
        if run.loss is not None:  # between the grant and the first line
            raise asyncio.CancelledError
        return await function(*args, **kwargs)
    except asyncio.CancelledError:
        if run.lease is None or run.loss not in FINAL:
            raise
        # arq would run a cancelled job again.
        raise JobExecutionFailed(_why(run.lease)) from None
    finally:
        run.end_body()


def _why(lease: Lease) -> str:
    try:
        lease.check()
    except LeaseLost as error:
        return str(error)
    return "lost the lease"
