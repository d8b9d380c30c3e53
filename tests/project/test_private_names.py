"""Private names of the frameworks that an adapter uses: each is listed here, and guarded by a test.

A name that is private may be another one in the next release. So what a framework's bounds in
pyproject.toml allow has been looked at, and a test of that adapter looks at each name: a release
that changed one fails there, and not in a worker.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]

GUARDED = {
    "limiter_arq": (
        "tests/arq/test_decorator.py",
        ["_cancel_aborted_jobs", "_handle_signals", "_poll_iteration"],
    ),
    "limiter_celery": (
        "tests/celery_/test_hooks.py",
        [
            "_announce_revoked",
            "_basic_consume",
            "_cache",
            "_delivery_info",
            "_get_current_object",
            "_limit_move_to_pool",
            "_limit_task",
            "_pool",
            "_process_task_sem",
            "_waiting",
        ],
    ),
    "limiter_docket": (
        "tests/docket/test_hooks.py",
        [
            "_Depends",
            "_apply_runs_data",
            "_cancelled_by_docket",
            "_ended",
            "_execution_counts",
            "_mark_as_terminal",
            "_pubsub",
            "_stack",
            "_tasks_by_key",
        ],
    ),
    "limiter_saq": (
        "tests/saq/test_saq.py",
        ["_active", "_finish", "_incomplete", "_queued", "_retry"],
    ),
}
"""For each adapter, the test file that guards the names, and the names."""

OURS = {"_call", "_engine", "_release", "_replace"}
"""Names of the core's leases that an adapter uses, and one of named tuples that is public."""

FRAMEWORKS = {
    "limiter_arq": "arq",
    "limiter_celery": "celery",
    "limiter_docket": "pydocket",
    "limiter_saq": "saq",
}


IN_ONE_MODULE = {"limiter_celery": "_celery.py"}
"""For each adapter that has one, the module that alone uses private names of the framework."""


def trees(*folders: Path, but: str = "") -> Iterator[ast.Module]:
    for folder in folders:
        for path in folder.rglob("*.py"):
            if path.name != but:
                yield ast.parse(path.read_text())


def defined_in(*folders: Path) -> set[str]:
    """Return the names that code defines: functions, classes, variables, attributes."""
    names: set[str] = set()
    for tree in trees(*folders):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def private_names_of_others(adapter: str, but: str = "") -> set[str]:
    """Return the private names that an adapter uses and this package does not define.

    Those that one of its modules alone uses are left out, if that is given.
    """
    own = defined_in(ROOT / "adapters" / adapter) | OURS
    found: set[str] = set()
    for tree in trees(ROOT / "adapters" / adapter, but=but):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                name, known = node.attr, own if owner in ("self", "cls") else OURS
                known = set() if owner == "super()" else known
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(
                "limiter_"
            ):
                found.update(each.name for each in node.names if each.name.startswith("_"))
                continue
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
                name, known = str(getattr(node.args[1], "value", "")), set()
            else:
                continue
            if name.startswith("_") and not name.startswith("__") and name not in known:
                found.add(name)
    return found


@pytest.mark.parametrize("adapter", GUARDED)
def test_each_private_name_of_a_framework_is_guarded(adapter: str) -> None:
    guard, names = GUARDED[adapter]
    assert sorted(private_names_of_others(adapter)) == names, f"list it, and guard it in {guard}"
    text = (ROOT / guard).read_text()
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize(("adapter", "module"), IN_ONE_MODULE.items())
def test_private_names_of_a_framework_are_used_in_one_module(adapter: str, module: str) -> None:
    assert private_names_of_others(adapter)
    assert private_names_of_others(adapter, but=module) == set()


@pytest.mark.parametrize(("adapter", "framework"), FRAMEWORKS.items())
def test_a_framework_has_bounds(adapter: str, framework: str) -> None:
    """A release that nobody has looked at is not installed with the extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (needed,) = [
        each
        for each in extras[adapter.removeprefix("limiter_")]
        if each.partition(">")[0].partition("[")[0] == framework
    ]
    assert ">=" in needed
    assert ",<" in needed


@pytest.mark.parametrize("adapter", ["limiter_celery", "limiter_docket"])
def test_the_oldest_release_is_tried(adapter: str) -> None:
    """(Of the others, the oldest is the newest.)"""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][adapter.removeprefix("limiter_")]
    framework = FRAMEWORKS[adapter]
    (needed,) = [each for each in extra if each.startswith(f"{framework}>=")]
    oldest = needed.removeprefix(f"{framework}>=").partition(",")[0]
    makefile = (ROOT / "Makefile").read_text()
    assert f"'{framework}=={oldest}.0'" in makefile
