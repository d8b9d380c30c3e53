"""The decorators `Limiter.limited` and `SyncLimiter.limited`."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from limiter_core._async_engine import AsyncEngine
from limiter_core._async_hold import Hold, run_held
from limiter_core._functions import (
    check_argument_names,
    check_async_function,
    check_result,
    check_sync_function,
    is_async_generator_function,
    is_generator_function,
)
from limiter_core._prepare import the_one_or_all
from limiter_core._streams import GeneratorHold, limited_async_generator, limited_generator
from limiter_core._sync_hold import Hold as SyncHold
from limiter_core.arguments import ArgumentView, Binder
from limiter_core.limits import ConcurrencyLimit

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
S = TypeVar("S")


class AsyncLimited(Protocol):
    """What `Limiter.limited` returns: it takes a function, and returns one of the same kind."""

    @overload
    def __call__(
        self, function: Callable[P, AsyncGenerator[Y, S]], /
    ) -> Callable[P, AsyncGenerator[Y, S]]: ...

    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[Y]], /
    ) -> Callable[P, AsyncIterator[Y]]: ...

    @overload
    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate a function."""
        ...


def limited_async(
    engine: AsyncEngine, limits: tuple[ConcurrencyLimit, ...], timeout: float | None
) -> AsyncLimited:
    """Return the decorator for functions of an event loop.

    Args:
        engine: takes the slots.
        limits: what the functions are put under.
        timeout: of each call, as for `Limiter.hold`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        check_async_function(function, "Limiter.limited()")
        bind = Binder(function)
        check_argument_names(limits, bind)
        taken = the_one_or_all(limits)
        if is_async_generator_function(function):
            return limited_async_generator(
                function, lambda args, kwargs: Hold(engine, taken, bind(args, kwargs), timeout)
            )

        @functools.wraps(function)
        async def limited_function(*args: Any, **kwargs: Any) -> Any:
            view = bind(args, kwargs)
            return await run_held(engine, taken, view, lambda _: function(*args, **kwargs), timeout)

        return limited_function

    return cast(AsyncLimited, decorate)


def limited_sync(
    limits: tuple[ConcurrencyLimit, ...],
    hold: Callable[[ArgumentView], SyncHold],
    hold_of_generator: Callable[[ArgumentView], GeneratorHold],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the decorator for functions of a thread.

    Args:
        limits: what the functions are put under.
        hold: returns what takes the slots of a call.
        hold_of_generator: the same, for a generator.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check_sync_function(function, "SyncLimiter.limited()")
        bind = Binder(function)
        check_argument_names(limits, bind)
        if is_generator_function(function):
            limited: Any = limited_generator(
                cast(Any, function), lambda args, kwargs: hold_of_generator(bind(args, kwargs))
            )
            return cast("Callable[P, R]", limited)

        @functools.wraps(function)
        def limited_function(*args: P.args, **kwargs: P.kwargs) -> R:
            with hold(bind(args, kwargs)):
                result = function(*args, **kwargs)
                check_result(result, function, "SyncLimiter.limited()")
                return result

        return limited_function

    return decorate
