"""The pages that people read: their code runs, their tables and links tell the truth."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution
from tests.project._tree import (
    DOCS,
    IN_REPOSITORY,
    ROOT,
    Block,
    code_blocks,
    headings_of,
    packages,
    pages,
)

PAGES = pages()
REDIS_IN_PAGES = ("redis://localhost:6379/0", "redis+cluster://localhost:7000")
ELSEWHERE = {
    "fastmcp": "FastMCP has an environment of its own",
    "openai": "the SDK of OpenAI, in the group dev",
    "prefect": "Prefect has an environment of its own: make test-prefect",
    "redis_semaphore": "a peer, in the group test",
    "steindamm": "a peer, in the group test",
}
"""What is not in every environment of the tests, by the module that a block imports."""
CODE = [path for package in packages().values() for path in package.rglob("*.py")]
TREE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
README = (ROOT / "README.md").read_text(encoding="utf-8")

GUARANTEE = (
    "At most `max_concurrent` holders per key while their leases are alive; a holder that crashes "
    "is replaced within one lease; a holder that cannot reach the store is notified before its "
    "lease ends; nobody waits while a slot is free."
)


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Gives code a server where it says that there is one."""

    def with_server(text: str) -> str:
        for url in REDIS_IN_PAGES:
            if url in text:
                text = text.replace(url, request.getfixturevalue("redis_url"))
        return text

    return with_server


@pytest.fixture(autouse=True, scope="module")
def django_project() -> None:
    """What `django-admin startproject` would write, for code that stands in such a project."""
    if not settings.configured:
        settings.configure()


def imported_in(code: ast.AST) -> set[str]:
    """Return the packages that code imports."""
    found = [node for node in ast.walk(code) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for node in found
    ]
    return {name.partition(".")[0] for each in names for name in each}


@pytest.fixture
def files(
    block: Block,
    served: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """The folder of a reader who saved the files of the page, as their titles say."""
    for each in code_blocks(block.page, "python"):
        if each.title:
            (tmp_path / each.title).write_text(served(each.text), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in code_blocks(page, "python")], ids=str
)
def test_code_runs_as_it_stands(
    block: Block,
    served: Callable[[str], str],
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = imported_in(compile(block.text, "", "exec", flags=TREE)) & ELSEWHERE.keys()
    for name in sorted(missing):
        if not find_spec(name):
            pytest.skip(ELSEWHERE[name])
    if block.title.startswith("test_"):
        run_pytest(files / block.title)
        return
    code = compile(
        "\n" * (block.line - 1) + served(block.text),  # so that a traceback names the page's line
        f"<{block.page}>",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    # A name of its own: Celery keeps tasks for all apps of the process, by module and name.
    module = ModuleType(re.sub(r"\W", "_", str(block)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace: dict[str, Any] = vars(module)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)
    if block.prints is not None:
        assert capsys.readouterr().out == block.prints


def run_pytest(file: Path) -> None:
    """Run a file of tests as its user does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    run = subprocess.run(
        command, cwd=file.parent, capture_output=True, text=True, check=False, timeout=50
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_where_top_level_await_is_meant(page: str) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    codes = [compile(each.text, page, "exec", flags=flags) for each in code_blocks(page, "python")]
    if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
        assert "python -m asyncio" in (ROOT / page).read_text(encoding="utf-8")


def test_there_is_code_to_run() -> None:
    assert len(code_blocks("README.md", "python")) >= 2
    assert sum(len(code_blocks(page, "python")) for page in PAGES) > 30


def test_every_limit_in_the_table_of_strategies_is_one() -> None:
    class MyStrategy(ConcurrencyStrategy):
        def get_key(self, execution: object, /) -> str:
            return "mine"

    limits = re.findall(r"^\| `(ConcurrencyLimit\(.*\))` \|", README, re.MULTILINE)
    assert len(limits) >= 8
    names = {
        "ConcurrencyLimit": ConcurrencyLimit,
        "LIMIT_BY": LIMIT_BY,
        "MyStrategy": MyStrategy,
    }
    for limit in limits:
        assert isinstance(eval(limit, names), ConcurrencyLimit), limit


def test_the_table_of_conflicts_has_a_row_for_each_resolution() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)`", README, re.MULTILINE)
    assert sorted(rows) == sorted(ConflictResolution.__members__)


def test_the_readme_states_the_guarantee_and_stays_short() -> None:
    assert GUARANTEE in " ".join(README.replace("\n> ", "\n").split())
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if heading:
            assert heading in headings_of(linked.read_text(encoding="utf-8")), target
        on_site = page.startswith("docs/") is linked.resolve().is_relative_to(DOCS)
        assert on_site or not page.startswith("docs/"), f"{target} is not on the site"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if re.match(r"docs/(tutorial|coming-from)/(?!index)", page)]
)
def test_a_page_that_is_read_in_order_has_one_next_page(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (following,) = re.findall(r"^Next: (.*)$", text, re.MULTILINE)
    assert re.search(r"\]\([\w./-]+\.md\)", following)


def test_pages_that_code_and_pages_name_are_there() -> None:
    sources = [*(ROOT / page for page in PAGES), *CODE]
    named = [
        (str(path.relative_to(ROOT)), page)
        for path in sources
        for page in re.findall(r"\bdocs/[\w./-]+\.(?:md|png|svg|json|yml)", path.read_text("utf-8"))
    ]
    assert len(named) > 20
    assert [each for each in named if not (ROOT / each[1]).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_into_the_repository_name_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(rf"{IN_REPOSITORY}(?:blob|tree)/main/([^)#\s]+)", text):
        assert (ROOT / target).exists(), target


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{limiter_core.__version__}]" in text
