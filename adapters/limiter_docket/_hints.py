"""Limits in the hints of a function that Docket does not see: such a function is refused.

Docket looks for `Annotated` around the whole hint of a parameter. And it sees none at all if one of
the function's hints cannot be resolved: of a name that is imported for type checkers only, say.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from docket import Docket
from docket.dependencies import get_annotation_dependencies

from limiter_core import ConfigurationError

_checked = weakref.WeakSet[Callable[..., Any]]()
"""Functions that are not refused: Docket registers one each time that a task of it is added."""


def check_new_tasks(kind: type[Any]) -> None:
    """Have Docket refuse functions with limits that it would ignore.

    When they are registered: it looks for what its dependencies do in a worker only if it sees one.

    Args:
        kind: the class of the limits.
    """
    register: Any = Docket.register

    @functools.wraps(register)
    def register_checked(
        docket: Docket, function: Callable[..., Any], *args: Any, **more: Any
    ) -> Any:
        if function not in _checked:
            _check_hints(function, kind)
            with suppress(TypeError):  # it cannot be referred to weakly
                _checked.add(function)
        return register(docket, function, *args, **more)

    cast(Any, Docket).register = register_checked


def _check_hints(function: Callable[..., Any], kind: type[Any]) -> None:
    """Refuse a function of which Docket sees fewer limits than there are in its hints.

    Raises:
        ConfigurationError: it has such a limit; says what to write.
    """
    hints, unresolved = _hints_of(function)
    there_are = sum(1 for hint in hints.values() for _ in _found_in(hint, kind))
    if not there_are:
        return
    dependencies = get_annotation_dependencies(function).values()
    if there_are <= sum(isinstance(each, kind) for found in dependencies for each in found):
        return
    name = getattr(function, "__name__", repr(function))
    raise ConfigurationError(
        f"{name} has a ConcurrencyLimit in its hints that Docket would ignore: "
        + (
            f"they cannot be resolved ({unresolved}). Import the name where the module is run, or "
            'give the limit as a default value: c: ConcurrencyLimit = ConcurrencyLimit("name")'
            if unresolved
            else "it has to be in the outermost Annotated of a parameter, as in "
            "Annotated[int | None, ConcurrencyLimit(1)]"
        )
    )


def _hints_of(function: Callable[..., Any]) -> tuple[Mapping[str, Any], Exception | None]:
    """Return the hints of a function, and why they cannot be resolved, if so."""
    try:
        return typing.get_type_hints(function, include_extras=True), None
    except Exception as error:  # noqa: BLE001  (whatever the text of a hint raises)
        # Then all names that are not known stand for one class.
        names: Any = _Names(getattr(inspect.unwrap(function), "__globals__", {}))
        given: dict[str, Any] = getattr(function, "__annotations__", {})
        return {name: _evaluated(hint, names) for name, hint in given.items()}, error


def _evaluated(hint: Any, names: _Names) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, names.known, cast(Any, names))  # noqa: S307  (as `get_type_hints` does)
    except Exception:  # noqa: BLE001  (it is no hint at all)
        return None


def _found_in(hint: Any, kind: type[Any]) -> Iterator[Any]:
    """Yield the limits in the metadata of a hint, and of the hints in it."""
    left, aliases = [hint], set[int]()
    while left:
        here: Any = left.pop()
        for each in getattr(here, "__metadata__", ()):  # of `Annotated`
            if isinstance(each, kind) or (isinstance(each, type) and issubclass(each, kind)):
                yield each
        alias: Any = getattr(here, "__origin__", here)  # of a `type` statement
        if id(alias) not in aliases:  # it may contain itself
            aliases.add(id(alias))
            with suppress(Exception):  # it is evaluated only here
                left.append(alias.__value__)
        left += typing.get_args(here)
        if isinstance(here, list):  # of the parameters of a `Callable`
            left += cast("list[Any]", here)


class _Names(dict[str, Any]):
    """The names in a hint: those that are not known stand for `_Unknown`."""

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__()
        self.known = known

    def __missing__(self, name: str) -> Any:
        if name in self.known or hasattr(builtins, name):
            raise KeyError(name)
        return _Unknown


class _OfUnknown(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, _: Any) -> Any:
        return cls


class _Unknown(metaclass=_OfUnknown):
    """Stands for a name that is not known, and for whatever is made of it."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return cls
