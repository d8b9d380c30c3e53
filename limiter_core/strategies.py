"""Strategies: from a call to the key it shares with others.

`LIMIT_BY` holds the built-in ones; a `ConcurrencyStrategy` of your own, or any object with a
`get_key` method, stands beside them. All are values: equal strategies make equal limits.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Protocol, cast, runtime_checkable

from limiter_core._key_values import checked_text
from limiter_core.arguments import ArgumentView
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError, KeyDerivationError
from limiter_core.keys import name_text, value_text

__all__ = ("LIMIT_BY", "ConcurrencyStrategy", "KeySource", "as_strategy", "key_part", "name_parts")


_PRINTABLE = 10**18
_LEAST = -_PRINTABLE


@runtime_checkable
class KeySource(Protocol):
    """Anything with a `get_key`; what `ConcurrencyLimit(by=...)` needs at the least."""

    def get_key(self, execution: ArgumentView, /) -> Any:
        """Return what identifies the group of calls that share the limit."""
        ...


class ConcurrencyStrategy(ABC):
    """Turns a call into a key: calls with the same key share the limit.

    Subclass it for a rule of your own::

        class ByTier(ConcurrencyStrategy):
            def get_key(self, execution):
                return f"tier:{tier_of(execution.get_argument('api_key'))}"

    Combine any two with ``&``: the parts of both make up the key.
    """

    @abstractmethod
    def get_key(self, execution: ArgumentView, /) -> Any:
        """Return what identifies the group of calls that share the limit.

        Usually text; any value with a stable text will do. May be `async def` where the limiter
        is async. An exception it raises reaches the caller, and no slot is taken.

        Args:
            execution: the call: `execution.get_argument("region")`, `execution.function_name`.
        """

    def __and__(self, other: ConcurrencyStrategy | KeySource) -> ConcurrencyStrategy:
        """Return the strategy whose key has the parts of both."""
        return _Combined((*_parts_of(self), *_parts_of(as_strategy(other))))


class Later(Awaitable[str]):
    """Text that has to be awaited: some parts are values, some awaitables of them."""

    __slots__ = ("_finish", "_parts")

    def __init__(self, parts: Sequence[Any], finish: Callable[[list[Any]], str]) -> None:
        self._parts = parts
        self._finish = finish

    def __await__(self) -> Generator[Any, Any, str]:
        return self._run().__await__()

    async def _run(self) -> str:
        return self._finish([await part if isawaitable(part) else part for part in self._parts])

    def close(self) -> None:
        """Give up, without a warning that the parts were never awaited."""
        for part in self._parts:
            if hasattr(part, "close"):
                part.close()


class _BuiltIn(ConcurrencyStrategy):
    """A strategy of this package: its `get_key` returns text that is encoded already."""


@dataclass(frozen=True, slots=True)
class _FnName(_BuiltIn):
    def get_key(self, execution: ArgumentView, /) -> str:
        if execution.function_name is None:
            raise KeyDerivationError(
                "LIMIT_BY.fn_name needs a function, and hold() and acquire() were given bare "
                "arguments: use limited() or run(), or limit by LIMIT_BY.constant(name) instead"
            )
        return name_text(execution.function_name) + "()"

    def __repr__(self) -> str:
        return "LIMIT_BY.fn_name"


@dataclass(frozen=True, slots=True)
class _FnArgument(_BuiltIn):
    names: tuple[str, ...]
    _texts: tuple[str, ...]

    def get_key(self, execution: ArgumentView, /) -> str:
        if len(self.names) == 1:
            name, text = self.names[0], self._texts[0]
            value = execution.get_argument(name)
            if type(value) is int and _LEAST < value < _PRINTABLE:  # the commonest key
                return f"{text}={value}"
            return f"{text}={value_text(value, where=f'argument {name!r}')}"
        return ",".join(
            f"{text}={value_text(execution.get_argument(name), where=f'argument {name!r}')}"
            for name, text in zip(self.names, self._texts, strict=True)
        )

    def __repr__(self) -> str:
        return f"LIMIT_BY.fn_argument({', '.join(map(repr, self.names))})"


@dataclass(frozen=True, slots=True)
class _Constant(_BuiltIn):
    name: str
    _text: str

    def get_key(self, execution: ArgumentView, /) -> str:  # noqa: ARG002  (the same for every call)
        return self._text

    def __repr__(self) -> str:
        return f"LIMIT_BY.constant({self.name!r})"


@dataclass(frozen=True, slots=True)
class _Combined(_BuiltIn):
    parts: tuple[ConcurrencyStrategy | KeySource, ...]

    def get_key(self, execution: ArgumentView, /) -> str | Awaitable[str]:
        texts = [key_part(part, execution) for part in self.parts]
        if all(isinstance(text, str) for text in texts):
            return "&".join(cast(list[str], texts))
        return Later(texts, "&".join)

    def __repr__(self) -> str:
        return " & ".join(map(repr, self.parts))


@dataclass(frozen=True, slots=True)
class _Fn(ConcurrencyStrategy):
    function: Callable[[ArgumentView], Any]

    def get_key(self, execution: ArgumentView, /) -> Any:
        return self.function(execution)

    def __repr__(self) -> str:
        return f"LIMIT_BY.fn({getattr(self.function, '__qualname__', self.function)!s})"


class _LimitBy:
    """The built-in strategies, by name. Use the one instance, `LIMIT_BY`."""

    __slots__ = ()

    @property
    def fn_name(self) -> ConcurrencyStrategy:
        """One key per function: all calls of the function share the limit.

        Needs `limited` or `run` (or an adapter); a `hold` of bare arguments has no function.
        """
        return _FN_NAME

    def fn_argument(self, *names: str) -> ConcurrencyStrategy:
        """One key per value of an argument, or per combination of values of several.

        The key does not contain the function's name: two functions limited by `customer_id` in
        one scope share the slots. Combine with `fn_name`, or give a `scope`, to separate them.

        Args:
            names: names of arguments, or dotted paths that lead into them (`"order.customer.id"`).
        """
        if not names:
            raise ConfigurationError("LIMIT_BY.fn_argument() needs at least one argument name")
        texts = tuple(_checked_name(name, "LIMIT_BY.fn_argument()") for name in names)
        for name in texts:
            if not all(name.split(".")):
                raise ConfigurationError(
                    f"{brief(name)} is not a path: write names with single dots between them, "
                    'such as "order.customer.id"'
                )
        return _FnArgument(texts, tuple(map(name_text, texts)))

    def constant(self, name: str) -> ConcurrencyStrategy:
        """One key for everything that names it, whatever function or arguments."""
        text = _checked_name(name, "LIMIT_BY.constant()")
        return _Constant(text, name_text(text))

    def fn(self, function: Callable[[ArgumentView], Any]) -> ConcurrencyStrategy:
        """One key per value that `function` returns for the call.

        Args:
            function: takes the `ArgumentView` (`lambda args: args["url"].split("/")[2]`), returns
                text or any value with a stable text; may be async where the limiter is.
        """
        if not callable(function):
            raise ConfigurationError(
                f"LIMIT_BY.fn() needs a function of the argument view, got {brief(function)}"
            )
        return _Fn(function)

    def __repr__(self) -> str:
        return "LIMIT_BY"


_FN_NAME = _FnName()
LIMIT_BY = _LimitBy()
"""The built-in strategies: `fn_name`, `fn_argument(...)`, `constant(...)`, `fn(...)`."""


def as_strategy(by: object) -> ConcurrencyStrategy | KeySource:
    """Return the strategy that a shorthand stands for.

    Raises:
        ConfigurationError: `by` is no strategy and no shorthand of one.
    """
    if by is None:
        return LIMIT_BY.fn_name
    if isinstance(by, str):
        return LIMIT_BY.fn_argument(by)
    if isinstance(by, ConcurrencyStrategy):
        return by
    if isinstance(by, type) and hasattr(by, "get_key"):
        raise ConfigurationError(f"give an instance of the strategy: {by.__name__}()")
    if isinstance(by, KeySource):
        return by
    if isinstance(by, list | tuple):
        return LIMIT_BY.fn_argument(*cast(Sequence[str], by))
    if by == LIMIT_BY:
        raise ConfigurationError("LIMIT_BY is the list of strategies: use one of its members")
    hint = ""
    if isinstance(by, int):
        hint = f"; for a limit per function write max_concurrent={brief(by)}"
    elif callable(by):
        hint = "; for a function of the call write LIMIT_BY.fn(function)"
    raise ConfigurationError(
        "a limit is by an argument's name, a list of names, a LIMIT_BY strategy or an object "
        f"with a get_key method, got {brief(by)}{hint}"
    )


def is_immediate(strategy: ConcurrencyStrategy | KeySource) -> bool:
    """Whether `strategy.get_key` is encoded text at once: no user's code, nothing to await."""
    return isinstance(strategy, _FnArgument | _FnName | _Constant)


def is_constant(strategy: object) -> bool:
    """Whether a strategy has the same key for all calls, which only constants promise."""
    if isinstance(strategy, _Combined):
        return all(map(is_constant, strategy.parts))
    return isinstance(strategy, _Constant)


def argument_names_of(strategy: object) -> tuple[str, ...]:
    """Return the names and dotted paths that a built-in strategy looks up, if they are known."""
    if isinstance(strategy, _FnArgument):
        return strategy.names
    if isinstance(strategy, _Combined):
        return tuple(name for part in strategy.parts for name in argument_names_of(part))
    return ()


def needs_function(strategy: object) -> bool:
    """Whether a built-in strategy goes by the name of the call's function."""
    if isinstance(strategy, _Combined):
        return any(map(needs_function, strategy.parts))
    return isinstance(strategy, _FnName)


def name_parts(strategy: ConcurrencyStrategy | KeySource) -> tuple[tuple[str, bool], ...]:
    """Return what a strategy says of itself, for the name of a limit.

    Returns:
        For each part of a combination a text, and whether the name of the call's function, if that
        is known, is better than this text.
    """
    if isinstance(strategy, _Combined):
        return tuple(itertools.chain.from_iterable(map(name_parts, strategy.parts)))
    if isinstance(strategy, _FnArgument):
        return ((",".join(strategy.names), False),)
    if isinstance(strategy, _Constant):
        return ((strategy.name, False),)
    if isinstance(strategy, _FnName):
        return (("fn_name", True),)
    if isinstance(strategy, _Fn):
        name = getattr(strategy.function, "__qualname__", "<lambda>")
        return (("fn", True),) if "<" in name else ((name, False),)
    return ((type(strategy).__name__, True),)


def key_part(
    strategy: ConcurrencyStrategy | KeySource, execution: ArgumentView
) -> str | Awaitable[str]:
    """Return the encoded text of one strategy's part of the key, or an awaitable of it."""
    found = strategy.get_key(execution)
    if isinstance(strategy, _BuiltIn):
        return cast("str | Awaitable[str]", found)
    if isawaitable(found):
        return Later([found], lambda values: _encode(strategy, values[0]))
    return _encode(strategy, found)


def _encode(strategy: object, found: Any) -> str:
    if found is None or found == "":
        raise KeyDerivationError(
            f"{strategy!r} returned {found!r}; it must return the text (or another value) that "
            "calls sharing the limit have in common"
        )
    what = f"what {strategy!r} returned"
    if isinstance(found, str):
        found = checked_text(found, what)
    return "key:" + value_text(found, where=what)


def _parts_of(
    strategy: ConcurrencyStrategy | KeySource,
) -> tuple[ConcurrencyStrategy | KeySource, ...]:
    return strategy.parts if isinstance(strategy, _Combined) else (strategy,)


def _checked_name(name: object, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"{where} needs non-empty text, got {brief(name)}")
    return str.__str__(name)  # of an enum's member that is text, the text
