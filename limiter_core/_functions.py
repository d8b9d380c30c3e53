"""What may be put under a limit: the checks of a function, when it is decorated or registered."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

from limiter_core.arguments import Binder, binder_of
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.limits import ConcurrencyLimit
from limiter_core.strategies import argument_names_of, needs_function

_DESCRIPTORS = (
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    functools.partialmethod,
    functools.singledispatchmethod,
)


def check_argument_names(
    limits: Iterable[ConcurrencyLimit],
    function: Binder | Callable[..., Any],
    *,
    hidden: Collection[str] = (),
) -> None:
    """Refuse limits by an argument that the function does not have.

    For `limited` and the adapters, which know the function before its first call. Of a
    dotted path only the first part is checked; a function with `**kwargs` may have any argument.

    Args:
        limits: the limits that the function is put under.
        function: the function, or its binder (whose `name` is then in the message).
        hidden: parameters that strategies do not see, such as arq's `ctx`.

    Raises:
        ConfigurationError: there is no such argument; the message lists those there are.
    """
    binder = function if isinstance(function, Binder) else binder_of(function)
    if binder.takes_any_name:
        return
    there_are = [name for name in binder.parameters if name not in hidden]
    for limit in limits:
        for by in (limit.by, limit.fair_by):
            _check_names(by, there_are, binder.name)


def check_view_names(limits: Iterable[ConcurrencyLimit], names: Collection[str]) -> None:
    """Refuse limits by an argument, or a function, that no call has.

    Args:
        limits: what the calls are put under.
        names: of the arguments that each of them has; none is the call of a function.

    Raises:
        ConfigurationError: there is no such argument; the message lists those there are.
    """
    for limit in limits:
        for by in (limit.by, limit.fair_by):
            if needs_function(by):
                raise ConfigurationError(
                    f"the limit by {by!r} needs a function, and a request has none; limit by "
                    f"LIMIT_BY.constant(name), or by one of: {', '.join(names)}"
                )
            _check_names(by, names, "a request")


def _check_names(by: object, there_are: Collection[str], owner: str) -> None:
    for name in argument_names_of(by):
        first = name.partition(".")[0]
        if first not in there_are:
            listed = f"there are: {', '.join(there_are)}" if there_are else "it has none"
            raise ConfigurationError(
                f"the limit by {by!r} needs an argument {first!r}, "
                f"which {owner} does not have; {listed}"
            )


def check_coroutine_function(function: object, where: str) -> None:
    """Refuse what is no coroutine function.

    Raises:
        ConfigurationError: it is none; says what to use instead, or which order to write.
    """
    _check_is_function(function, where)
    if not _is_of_kind(function, inspect.iscoroutinefunction):
        hint = "for plain functions there is SyncLimiter"
        if is_async_generator_function(function):
            hint = "for async generator functions there is Limiter.limited()"
        raise ConfigurationError(
            f"{where} needs a coroutine function (async def), got {brief(function)}; {hint}"
        )


def check_async_function(function: object, where: str) -> None:
    """Refuse what is neither a coroutine function nor an async generator function.

    Raises:
        ConfigurationError: it is neither; says what to use instead, or which order to write.
    """
    _check_is_function(function, where)
    _check_makes_no_context_manager(function, where)
    if not is_async_generator_function(function):
        check_coroutine_function(function, where)


def check_plain_function(function: object, where: str) -> None:
    """Refuse a function whose body would run after the slot is released.

    Raises:
        ConfigurationError: it is one; says what to use instead, or which order to write.
    """
    check_sync_function(function, where)
    if is_generator_function(function):
        raise ConfigurationError(
            f"{where} needs a plain function, no coroutine and no generator, got "
            f"{brief(function)}; for generator functions there is SyncLimiter.limited()"
        )


def check_sync_function(function: object, where: str) -> None:
    """Refuse what is neither a plain function nor a generator function.

    Raises:
        ConfigurationError: it is neither; says what to use instead, or which order to write.
    """
    _check_is_function(function, where)
    is_async = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if not callable(function) or any(
        check(each) for check in is_async for each in _themselves(function)
    ):
        raise ConfigurationError(
            f"{where} needs a plain function or a generator function, got {brief(function)}; "
            "for coroutine functions and async generator functions there is Limiter"
        )
    _check_makes_no_context_manager(function, where)


def is_async_generator_function(function: object) -> bool:
    """Whether calls of a function return async generators, as far as it shows."""
    is_one = _is_of_kind(function, inspect.isasyncgenfunction)
    return is_one and not _makes_context_manager(function)


def is_generator_function(function: object) -> bool:
    """Whether calls of a function return generators, as far as it shows."""
    return any(map(inspect.isgeneratorfunction, _themselves(function)))


_KINDS = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)


def _is_of_kind(function: object, is_kind: Callable[[object], bool]) -> bool:
    # A plain function returns what the one does that it stands around, as far as it shows.
    inner: Any = _without_partials(function)
    with contextlib.suppress(ValueError):  # it stands around itself, or has whatever is asked for
        inner = inspect.unwrap(inner, stop=_is_of_any_kind)
    return any(map(is_kind, _themselves(inner)))


def _is_of_any_kind(function: object) -> bool:
    return any(kind(each) for kind in _KINDS for each in _themselves(function))


def _themselves(function: object) -> tuple[object, object]:
    """Return a function, and the method that is called if it is an object of another kind."""
    inner = _without_partials(function)
    return inner, getattr(type(inner), "__call__", None)  # noqa: B004  (the method, not whether)


def _makes_context_manager(function: object) -> bool:
    """Whether a function was made by `contextlib.contextmanager` or `asynccontextmanager`."""
    inner = _without_partials(function)
    wrapped = getattr(inner, "__wrapped__", None)
    return getattr(inner, "__globals__", None) is vars(contextlib) and (
        inspect.isgeneratorfunction(wrapped) or inspect.isasyncgenfunction(wrapped)
    )


def _check_makes_no_context_manager(function: object, where: str) -> None:
    if _makes_context_manager(function):
        raise ConfigurationError(
            f"{where} cannot limit {brief(function)}: it makes a context manager, whose block runs "
            "after the call; take the slot inside of it, with hold()"
        )


_LATER: dict[type[object], str] = {
    CoroutineType: "a coroutine, which would run after the slot is released; for coroutine "
    "functions there is Limiter",
    AsyncGeneratorType: "an async generator, which would run after the slot is released; for async "
    "generator functions there is Limiter",
    GeneratorType: "a generator, which would run after the slot is released; the limit belongs "
    "below other decorators, next to the generator function",
}


def check_result(result: object, function: object, where: str) -> None:
    """Refuse what a plain function returned and has not run yet: it would run without the slot.

    Raises:
        ConfigurationError: the result is a coroutine or a generator.
    """
    returned = _LATER.get(type(result))
    if returned is not None:
        if type(result) is CoroutineType:
            cast("CoroutineType[Any, Any, Any]", result).close()  # else it warns
        raise ConfigurationError(
            f"{where} needs a plain function, and {brief(function)} returned {returned}"
        )


def _check_is_function(function: object, where: str) -> None:
    if isinstance(function, _DESCRIPTORS):
        name = type(cast(object, function)).__name__
        raise ConfigurationError(
            f"{where} needs a function, got a {name}: write @{name} above it, and the limit below, "
            "next to the function"
        )


def _without_partials(function: object) -> object:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return function
