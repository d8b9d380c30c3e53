"""The pages on reliability are right: the tests that they name exist, and none is left out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.project._tree import ROOT
from tests.project.test_pages import GUARANTEE

PAGES = [
    ROOT / "docs" / page
    for page in (
        "explanation/reliability.md",
        "explanation/fault-trials.md",
        "explanation/notification-times.md",
        "explanation/tasks-and-threads.md",
        "explanation/failure-modes.md",
        "how-to/fencing-token.md",
    )
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_of(file: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def section(heading: str) -> str:
    """Return a section of the page."""
    return TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_test_that_it_names_exists() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) > 60
    missing = [f"{file}::{name}" for file, name in named if name not in names_of(file)]
    assert missing == []


def test_every_trial_is_in_the_table_of_faults() -> None:
    named = set(NAMED.findall(section("Faults")))
    for path in Path(__file__).parent.glob("test_*.py"):
        file = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for test in tree.body:
            if isinstance(test, ast.FunctionDef) and "trial" in {a.arg for a in test.args.args}:
                assert (file, test.name) in named


def test_every_way_to_break_has_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*)$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 37))
    for number, row in rows:
        assert NAMED.search(row), f"row {number} names no test"


def test_it_states_the_guarantee() -> None:
    assert GUARANTEE in " ".join(TEXT.replace("\n> ", "\n").split())


def test_what_the_example_prints_is_what_it_prints() -> None:
    story = (ROOT / "examples" / "fencing_token.py").read_text(encoding="utf-8")
    [printed] = re.findall(r"```text\n(first: .*?)```", TEXT, re.DOTALL)
    assert printed in story.replace("\n    ", "\n")
