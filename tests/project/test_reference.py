"""The reference has every public name, every command, and every setting."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import tomllib
from importlib.util import find_spec
from typing import Any

import pytest

import limiter_core
from limiter_core import ConcurrencyLimit, Limiter
from tests.project._tree import DOCS, ROOT, packages, script

REFERENCE = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md"))
)
DOCUMENTED = set(re.findall(r"^::: ([\w.]+)$", REFERENCE, re.MULTILINE))

MODULES = (
    *(name for name in packages() if name != "limiter_fastmcp" or find_spec("fastmcp")),
    "limiter_core.events",
    "limiter_core.jobs",
    "limiter_core.monitoring",
    "limiter_core.requests",
    "limiter_core.store",
    "limiter_core.testing",
)
"""The packages, and the modules of the core that users import by themselves."""


def is_of_the_core(name: str, value: Any) -> bool:
    """Whether a package has a name from the core, where the reference has it."""
    return getattr(limiter_core, name, None) is value and f"limiter_core.{name}" in DOCUMENTED


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(name)
    missing = [
        each
        for each in getattr(module, "__all__", ())
        if each != "__version__"
        and f"{name}.{each}" not in DOCUMENTED
        and not is_of_the_core(each, getattr(module, each))
    ]
    assert missing == []


@pytest.mark.parametrize("path", sorted(DOCUMENTED))
def test_every_name_of_the_reference_is_there(path: str) -> None:
    if path.startswith("limiter_fastmcp") and not find_spec("fastmcp"):
        pytest.skip("FastMCP has an environment of its own")
    module, _, name = path.rpartition(".")
    found = importlib.import_module(path if path in MODULES else module)
    assert path in MODULES or hasattr(found, name)


def test_the_reference_of_the_commands_is_what_they_say() -> None:
    made = script(".ci/docs_cli.py").page()
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == made, "out of date: run .venv/bin/python .ci/docs_cli.py"


def rows_of(heading: str) -> set[str]:
    """Return what stands in code in the first column of a section of the page of settings."""
    page = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_page_of_settings_has_all_of_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rows_of("Extras") == set(project["optional-dependencies"])
    assert rows_of("Limiters") == set(inspect.signature(Limiter).parameters)
    assert rows_of("Limits") == {field.name for field in dataclasses.fields(ConcurrencyLimit)}
    schemes = {url.partition("://")[0] for url in rows_of("URLs of stores") if "://" in url}
    stores = set(project["entry-points"]["limiter.stores"])
    assert schemes == {name for name in stores if not name.startswith("rediss+")}
    sources = [
        path for name in ("limiter_cli", "limiter_web") for path in (ROOT / name).rglob("*.py")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert rows_of("Environment variables") == set(re.findall(r"\bLIMITER_[A-Z_]+\b", code))


def test_the_drawings_are_what_the_script_draws() -> None:
    pictures = script(".ci/docs_pictures.py")
    for name in ("call-states.svg", "hand-off.svg", "packages.svg"):
        drawn = (DOCS / "assets" / name).read_text(encoding="utf-8")
        assert drawn == pictures.PICTURES[name](), "run .venv/bin/python .ci/docs_pictures.py"


def test_the_timeline_is_what_the_demo_prints() -> None:
    def words(svg: str) -> list[str]:
        return re.findall(r"<text [^>]*>([^<]*)</text>", svg)

    drawn = (DOCS / "assets" / "demo.svg").read_text(encoding="utf-8")
    made = script(".ci/docs_pictures.py").PICTURES["demo.svg"]()
    assert words(drawn) == words(made), "run .venv/bin/python .ci/docs_pictures.py"


def tree_of(cls: type[BaseException], depth: int = 0) -> list[str]:
    """Return an error and those below it, each with the built-in error that it also is."""
    builtin = [each.__name__ for each in cls.__bases__ if each.__module__ == "builtins"]
    note = f" ({builtin[0]})" if depth and builtin else ""
    below = [each for each in vars(limiter_core).values() if isinstance(each, type)]
    children = sorted(
        (each for each in below if issubclass(each, cls) and nearest(each) is cls),
        key=lambda each: each.__name__,
    )
    lines = ["    " * depth + cls.__name__ + note]
    return lines + [line for each in children for line in tree_of(each, depth + 1)]


def nearest(cls: type) -> type | None:
    """Return the public error that a public error is a kind of."""
    errors = [each for each in cls.__mro__[1:] if vars(limiter_core).get(each.__name__) is each]
    return errors[0] if errors else None


def test_the_tree_of_errors_is_theirs() -> None:
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    assert "\n".join(tree_of(limiter_core.LimiterError)) in page
