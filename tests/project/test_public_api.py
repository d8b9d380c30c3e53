"""The public names: complete, documented, and the same in both worlds."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

import pytest

import limiter_core
from limiter_core import Lease, Limiter, SyncLease, SyncLimiter
from limiter_core.store import AsyncStore, SyncStore
from tests.project._tree import modules, packages

# The names of the twins, where they are not the same.
RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}


# FastMCP has an environment of its own.
PACKAGES = {
    name: path
    for name, path in packages().items()
    if name != "limiter_fastmcp" or find_spec("fastmcp")
}


def public_modules() -> list[str]:
    """Return the modules that a user may import."""
    return [
        name
        for package in PACKAGES.values()
        for name, _ in modules(package)
        if not any(part.startswith("_") for part in name.split("."))
    ]


@pytest.fixture(params=public_modules())
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def exported(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


# -- names -----------------------------------------------------------------------------------------


def test_every_exported_name_exists(module: ModuleType) -> None:
    assert [name for name in exported(module) if not hasattr(module, name)] == []


def test_exported_names_are_sorted_constants_first_then_classes(module: ModuleType) -> None:
    def place(name: str) -> tuple[int, str]:
        return 0 if name.isupper() else 1 if name[0].isupper() else 2, name

    names = exported(module)
    assert names == sorted(names, key=place)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_all_that_can_be_imported_from_it(package: str) -> None:
    loaded = importlib.import_module(package)
    public = {
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        # What it uses itself, from elsewhere, is no part of it.
        and getattr(value, "__module__", package).partition(".")[0] in packages()
    }
    assert public == set(exported(loaded)) - {"__version__"}


def test_the_core_exports_every_error() -> None:
    errors = importlib.import_module("limiter_core.errors")
    assert set(exported(errors)) <= set(exported(limiter_core))


# -- documentation ---------------------------------------------------------------------------------


def undocumented(module: ModuleType) -> Iterator[str]:
    """Yield the exported classes and functions, and their members, that have no docstring."""
    for name in exported(module):
        value = getattr(module, name)
        if isinstance(value, FunctionType) and not inspect.getdoc(value):
            yield name
        elif inspect.isclass(value):
            # A dataclass without a docstring gets its signature for one.
            if (value.__doc__ or f"{name}(").startswith(f"{name}("):
                yield name
            yield from (f"{name}.{member}" for member in _undocumented_members(value))


def _undocumented_members(cls: type) -> Iterator[str]:
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if name.startswith("_") or not isinstance(member, FunctionType | property):
            continue
        function = member.fget if isinstance(member, property) else member
        ours = getattr(function, "__module__", "").partition(".")[0] in packages()
        if ours and not inspect.getdoc(getattr(cls, name, member)):
            yield name


def test_every_exported_name_is_documented(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip(), "the module has no docstring"
    assert list(undocumented(module)) == []


# -- twins -----------------------------------------------------------------------------------------


def members(cls: type) -> dict[str, Any]:
    """Return the public members of a class and its way of being entered, by their sync names."""
    entering = {*RENAMED, *RENAMED.values()}
    return {
        RENAMED.get(name, name): inspect.getattr_static(cls, name)
        for name in dir(cls)
        if not name.startswith("_") or name in entering
    }


TWINS = pytest.mark.parametrize(
    ("asynchronous", "sync"),
    [(Limiter, SyncLimiter), (Lease, SyncLease), (AsyncStore, SyncStore)],
    ids=lambda cls: cls.__name__,
)


@TWINS
def test_twins_have_the_same_members(asynchronous: type, sync: type) -> None:
    assert members(asynchronous).keys() == members(sync).keys()


@TWINS
def test_twins_take_the_same_parameters(asynchronous: type, sync: type) -> None:
    def parameters(function: Any) -> list[tuple[Any, ...]]:
        signature = inspect.signature(function)
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    ours, theirs = members(asynchronous), members(sync)
    for name, member in ours.items():
        assert isinstance(member, property) == isinstance(theirs[name], property), name
        if isinstance(member, FunctionType):
            assert parameters(member) == parameters(theirs[name]), name
    if asynchronous is Limiter:
        assert parameters(asynchronous) == parameters(sync)


@TWINS
def test_nothing_is_awaited_on_the_sync_side(asynchronous: type, sync: type) -> None:
    del asynchronous
    waiting = [
        name
        for name, member in members(sync).items()
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
    ]
    assert not waiting
