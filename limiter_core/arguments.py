"""The argument view: what a strategy sees of a call, whichever framework made it.

A `hold` gives a mapping, `limited` and `run` bind a Python call, an adapter maps its own
execution. All of them end in one `ArgumentView`.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, cast

from limiter_core.errors import ConfigurationError, KeyDerivationError

__all__ = ("ArgumentView", "Binder", "binder_of", "function_name_of")

_MISSING: Any = object()


class ArgumentView(Mapping[str, Any]):
    """The bound arguments of one call, read-only, and the name of its function.

    A mapping from argument name to value: `view["customer_id"]`, `"region" in view`, `dict(view)`.

    Attributes:
        function_name: the function's full name (`shop.tasks.bill`), or None where a `hold` was
            given a bare mapping and there is no function.
        adapter: the framework that made the call, for its events; that of a subclass in an adapter.
    """

    __slots__ = ("_arguments", "function_name")

    adapter: ClassVar[str | None] = None

    def __init__(self, arguments: Mapping[str, Any], function_name: str | None = None) -> None:
        self._arguments = arguments
        self.function_name = function_name

    def get_argument(self, name: str) -> Any:
        """Return the value of an argument.

        Args:
            name: an argument's name, or a dotted path that leads into it:
                `"order.customer.id"` looks into mappings by key, sequences by index and other
                objects by attribute.

        Raises:
            KeyDerivationError: there is no such argument; the message lists those there are.
        """
        value = self._arguments.get(name, _MISSING)
        if value is not _MISSING:
            return value
        first, *path = name.split(".")
        value = self._arguments.get(first, _MISSING)
        if value is _MISSING:
            raise KeyDerivationError(self._no_such_argument(first))
        for depth, step in enumerate(path, start=1):
            found = _step_into(value, step)
            if found is _MISSING:
                parent = ".".join((first, *path[: depth - 1]))
                raise KeyDerivationError(
                    f"{name!r} leads nowhere: {parent!r} is a {type(value).__qualname__} "
                    f"without {step!r}{_listed(_steps_of(value))}"
                )
            value = found
        return value

    def __getitem__(self, name: str) -> Any:
        return self.get_argument(name)

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return the argument's value as `get_argument` does, or `default` if it has none."""
        try:
            return self.get_argument(name)
        except KeyDerivationError:
            return default

    def __contains__(self, name: object) -> bool:
        return name in self._arguments

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def __repr__(self) -> str:
        # Names only: values may be secrets, and this ends up in logs.
        return f"<ArgumentView of {self.function_name or 'a mapping'}: {', '.join(self)}>"

    def _no_such_argument(self, name: str) -> str:
        owner = f"{self.function_name} has" if self.function_name else "the call has"
        return f"{owner} no argument {name!r}{_listed(list(self._arguments))}"


def _step_into(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return cast(Mapping[str, Any], value).get(step, _MISSING)
    if isinstance(value, list | tuple) and step.isdecimal():
        items = cast("list[Any]", value)
        return items[int(step)] if int(step) < len(items) else _MISSING
    found: Any = getattr(cast(object, value), step, _MISSING)
    return found


def _steps_of(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) for key in cast(Mapping[Any, Any], value)]
    return [
        name for name in getattr(cast(object, value), "__dict__", {}) if not name.startswith("_")
    ]


def _listed(names: list[str]) -> str:
    return (
        f"; there are: {', '.join(sorted(map(str, names)))}" if names else "; there are none at all"
    )


class Binder:
    """Binds calls of one function by its signature, defaults included.

    What lands in the function's `**kwargs` is found under its own name as well, and so is what a
    `functools.partial` has bound beforehand.

    Attributes:
        name: the function's full name; see `function_name_of`.
        parameters: the names of its parameters, in order.

    Raises:
        ConfigurationError: the function (a built-in) has no signature.
        TypeError: (from the call) the arguments do not fit; worded as the call itself would be.
    """

    __slots__ = ("_args", "_kwargs", "_signature", "_var_keyword", "name", "parameters")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function_name_of(function)
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        while isinstance(function, functools.partial):
            partial = cast("functools.partial[Any]", function)
            self._args = (*partial.args, *self._args)
            self._kwargs = {**partial.keywords, **self._kwargs}
            function = partial.func
        try:
            self._signature = inspect.signature(function)
        except ValueError:
            raise ConfigurationError(
                f"{function!r} has no signature, so no limit can use its arguments: "
                "wrap it in a function that does"
            ) from None
        self.parameters = tuple(self._signature.parameters)
        self._var_keyword = next(
            (
                parameter.name
                for parameter in self._signature.parameters.values()
                if parameter.kind is inspect.Parameter.VAR_KEYWORD
            ),
            None,
        )

    @property
    def takes_any_name(self) -> bool:
        """Whether a call may have arguments of any name."""
        return self._var_keyword is not None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentView:
        """Return the view of one call."""
        bound = self._signature.bind(*self._args, *args, **{**self._kwargs, **kwargs})
        bound.apply_defaults()
        arguments: dict[str, Any] = bound.arguments
        if self._var_keyword is not None:
            arguments = {**arguments[self._var_keyword], **arguments}
        return ArgumentView(arguments, self.name)


_binders: weakref.WeakKeyDictionary[types.FunctionType, Binder] = weakref.WeakKeyDictionary()


def binder_of(function: Callable[..., Any]) -> Binder:
    """Return the binder of a function; kept for plain functions, as long as they live."""
    if not isinstance(function, types.FunctionType):
        return Binder(function)
    binder = _binders.get(function)
    if binder is None:
        binder = _binders[function] = Binder(function)
    return binder


def function_name_of(function: Callable[..., Any]) -> str:
    """Return the name that `LIMIT_BY.fn_name` uses: module and qualified name.

    Looks through `functools.partial`; a callable object goes by the name of its class. A file has
    one name, however it is started: as a script, with `-m`, imported, or in a spawned process. For
    a script that is its name below the directories that are no package (no `__init__.py`).
    """
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{_module_name_of(named)}.{named.__qualname__}"


def _module_name_of(named: Any) -> str:
    name: str = named.__module__
    if name not in ("__main__", "__mp_main__"):  # the latter: in a process of `multiprocessing`
        return name
    # While a spawned process imports its file, `sys.modules` has another `__main__`.
    place: dict[str, Any] = getattr(inspect.unwrap(named), "__globals__", {})
    if place.get("__name__") != name:
        place = vars(sys.modules[name]) if name in sys.modules else {}
    spec, file = place.get("__spec__"), place.get("__file__")
    if spec is not None and spec.name != "__main__":  # python -m
        return str(spec.name)
    # A prompt, a notebook and `python -c` have no file.
    return _module_name_of_file(file) if file else name


def _module_name_of_file(file: str) -> str:
    """Return the name by which a file is imported, as far as the packages around it show."""
    path = pathlib.Path(file)
    path = path.resolve() if path.is_absolute() else pathlib.Path(path.name)  # as `sys.path[0]`
    folder, parts = path.parent, [path.stem]
    while folder.name and (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts == ["__main__"]:  # of a folder or an archive
        parts.insert(0, path.parent.stem)
    return ".".join(parts)
