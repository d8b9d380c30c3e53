"""What is installed: the version, the entry points, the extras."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points, requires, version

import limiter_core
from tests.project._tree import ROOT, packages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_installed_version_is_that_of_the_code() -> None:
    assert version("concurrency-limits") == limiter_core.__version__


def test_the_memory_store_is_found_by_its_scheme() -> None:
    assert "memory" in entry_points(group="limiter.stores").names


def test_the_command_is_installed() -> None:
    assert "limiter" in entry_points(group="console_scripts").names


def test_without_extras_two_requirements_are_enough() -> None:
    plain = [text for text in requires("concurrency-limits") or () if "extra ==" not in text]
    assert sorted(text.partition(">")[0] for text in plain) == ["anyio", "pydantic"]


def test_the_wheel_has_every_package() -> None:
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(name.removeprefix("adapters/") for name in listed) == sorted(packages())


def test_the_wheel_has_the_sample_of_the_demo() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"examples/data": "limiter_cli/data"}
    assert list((ROOT / "examples/data").glob("*.jsonl"))


def test_types_are_checked_in_every_package() -> None:
    assert set(packages()) <= set(PROJECT["tool"]["mypy"]["packages"])
    checked = {name.removeprefix("adapters/") for name in PROJECT["tool"]["pyright"]["include"]}
    assert {*packages(), "examples", "benchmarks"} <= checked
