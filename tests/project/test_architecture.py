"""Imports point down only: adapters and stores import the core, which imports neither."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.project._tree import modules, packages

CORE = {"anyio", "pydantic", "limiter_core"}

MAY_IMPORT = {
    "limiter_core": CORE,
    "limiter_core.testing": CORE | {"pytest", "hypothesis"},
    "limiter_memory": {"limiter_core", "limiter_memory"},
    "limiter_redis": {"limiter_core", "limiter_redis", "anyio", "redis"},
    # An adapter gets its store; only for the framework's own Redis it makes one, when it has to.
    "limiter_docket": {"limiter_core", "limiter_redis", "limiter_memory", "limiter_docket"}
    | {"docket", "uncalled_for", "redis"},
    "limiter_celery": {"limiter_core", "limiter_redis", "limiter_celery"}
    | {"billiard", "celery", "kombu", "vine"},
    "limiter_arq": {"limiter_core", "limiter_redis", "limiter_arq", "arq", "click", "redis"},
    "limiter_saq": {"limiter_core", "limiter_redis", "limiter_saq", "saq", "redis"},
    "limiter_otel": {"limiter_core", "limiter_otel", "opentelemetry"},
    "limiter_asgi": {"limiter_core", "limiter_http", "limiter_asgi", "anyio", "starlette"},
    # What clients and servers share: of the first two clients all but the names.
    "limiter_http": {"limiter_core", "limiter_http"},
    "limiter_httpx": {"limiter_core", "limiter_http", "limiter_httpx", "httpx"},
    "limiter_httpx2": {"limiter_core", "limiter_http", "limiter_httpx2", "httpx2"},
    "limiter_aiohttp": {"limiter_core", "limiter_http", "limiter_aiohttp", "aiohttp"},
    "limiter_web": CORE
    | {"limiter_web", "jinja2", "prometheus_client", "sse_starlette", "starlette", "uvicorn"},
    "limiter_fastmcp": {"limiter_core", "limiter_http", "limiter_fastmcp"}
    | {"fastmcp", "mcp", "mcp_types"},
    # Of what HTTP clients share, how a refusal becomes one of the client.
    "limiter_pydantic_ai": {"limiter_core", "limiter_http", "limiter_pydantic_ai", "pydantic_ai"},
    # The demo simulates a load on a memory store with a clock of its own.
    "limiter_cli": CORE | {"limiter_cli", "limiter_memory", "rich", "trio", "typer"},
    "limiter_cli.top": CORE | {"limiter_cli", "rich", "textual", "typer"},
    "limiter_cli.demo.serving": CORE | {"limiter_cli", "limiter_web"},
    "limiter_cli.serve": CORE | {"limiter_cli", "limiter_web", "typer"},
}
"""Beside the standard library. The longest name that a module's begins with counts."""

ROOMS = {
    "limiter_redis": ["protocol", "connection", "cluster", "transport", "session"],
}
"""The folders of a package, the lowest first: each imports itself, and those before it."""

FLOORS = {"limiter_redis": 8}
"""How many modules of a package a chain of imports may have."""


class Import(NamedTuple):
    importer: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name}"


def imports_of(name: str, path: Path) -> list[Import]:
    """Return all imports of a module: also those in functions, and those for type checkers."""
    found: list[Import] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.extend(Import(name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            found.append(Import(name, node.lineno, str(node.module)))
            # `from package import module` imports a module, too.
            found.extend(
                Import(name, node.lineno, f"{node.module}.{alias.name}") for alias in node.names
            )
    return found


def rule_for(module: str) -> set[str]:
    """Return what a module may import."""
    rules = [name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")]
    assert rules, f"say in MAY_IMPORT what {module} may import"
    return MAY_IMPORT[max(rules, key=len)]


ALL_MODULES = [module for package in packages().values() for module in modules(package)]


@functools.cache
def all_imports() -> list[Import]:
    """Return those of all modules: found when a test asks, not by each process that collects it."""
    return [found for name, path in ALL_MODULES for found in imports_of(name, path)]


def test_there_is_something_to_look_at() -> None:
    assert {"limiter_core", "limiter_memory"} <= set(packages())
    assert any(found.name == "limiter_core.errors" for found in all_imports())


@pytest.mark.parametrize("package", packages())
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if found.importer.partition(".")[0] == package
        and (top := found.name.partition(".")[0]) not in sys.stdlib_module_names
        and top not in rule_for(found.importer)
    ]
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_itself_and_what_lies_below_it(package: str) -> None:
    rooms = [f"{package}.{room}" for room in ROOMS[package]]
    own = {name for name, _ in modules(packages()[package])}
    folders = {name.rpartition(".")[0] for name in own} - {"", package}
    assert folders == set(rooms), "say in ROOMS where a new folder stands"

    def room_of(module: str) -> str:
        return next((room for room in rooms if f"{module}.".startswith(f"{room}.")), "")

    wrong = [
        str(found)
        for found in all_imports()
        if found.importer in own
        and (room := room_of(found.importer))
        and found.name.partition(".")[0] == package
        and room_of(found.name) not in rooms[: rooms.index(room) + 1]
    ]
    assert not wrong


def imports_within(package: str) -> dict[str, set[str]]:
    """Return what each module of a package imports of the same package."""
    graph: dict[str, set[str]] = {name: set() for name, _ in modules(packages()[package])}
    for found in all_imports():
        if found.importer in graph and found.name in graph:
            graph[found.importer].add(found.name)
    for imported in graph.values():
        # `from package import module` is an import of the module.
        imported -= {name for name in imported if any(f"{name}." in other for other in imported)}
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules that are in import circles, or import one that is."""
    left = dict(graph)
    while done := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in done:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("package", packages())
def test_no_imports_go_in_a_circle(package: str) -> None:
    assert not circle_in(imports_within(package))


def test_a_circle_would_be_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("package", FLOORS)
def test_a_chain_of_imports_is_short(package: str) -> None:
    graph = imports_within(package)

    @functools.cache
    def floor(module: str) -> int:
        return 1 + max(map(floor, graph[module]), default=0)

    assert {name for name in graph if floor(name) > FLOORS[package]} == set()


LONGEST = 350
"""Lines that a module may have: a longer one has two subjects."""


def test_no_module_is_long() -> None:
    lines = {name: path.read_text(encoding="utf-8").count("\n") for name, path in ALL_MODULES}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_the_core_does_not_import_its_testing_package() -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if f"{found.name}.".startswith("limiter_core.testing.")
        and not f"{found.importer}.".startswith("limiter_core.testing.")
    ]
    assert not wrong


PUBLIC = {"limiter_redis": {"limiter_redis", "limiter_redis.store"}}
"""Of the packages whose modules are private without an underscore: those that are not."""


def is_private(module: str) -> bool:
    """Whether only its own package imports a module."""
    package, *parts = module.split(".")
    if package in PUBLIC:
        return module not in PUBLIC[package]
    return any(part.startswith("_") for part in parts)


def test_nobody_imports_the_private_modules_of_another_package() -> None:
    private = {name for name, _ in ALL_MODULES if is_private(name)}
    wrong = [
        str(found)
        for found in all_imports()
        if found.name in private
        and found.importer.partition(".")[0] != found.name.partition(".")[0]
    ]
    assert not wrong


READ_TIME_THEMSELVES = (
    "limiter_core.system_clock",
    "limiter_cli.run.supervisor",  # a script, in a process of its own, with no package of ours
)


def test_time_is_read_from_the_system_clock_alone() -> None:
    """A tool that freezes time for a test replaces what the module `time` has."""
    wrong = [
        str(found)
        for found in all_imports()
        if found.name.partition(".")[0] == "time" and found.importer not in READ_TIME_THEMSELVES
    ]
    assert not wrong, "write `from limiter_core.system_clock import system_clock as time`"


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_the_core_loads_no_store_no_test_tool_and_no_framework() -> None:
    loaded = loaded_by("import limiter_core")
    assert "limiter_core" in loaded
    others = set(packages()) - {"limiter_core"}
    tools = {"pytest", "_pytest", "hypothesis", "rich", "typer", "trio", "redis"}
    frameworks = {"docket", "celery", "arq", "aiohttp", "httpx", "httpx2", "opentelemetry"}
    frameworks |= {"fastmcp", "pydantic_ai", "starlette", "fastapi"}
    assert not loaded & (others | tools | frameworks)


def test_a_url_loads_the_store_that_it_names() -> None:
    loaded = loaded_by("from limiter_core import Limiter; Limiter('memory://')")
    assert "limiter_memory" in loaded
    assert not loaded & {"pytest", "hypothesis", "trio", "redis"}


def test_the_command_starts_without_what_its_demo_alone_needs() -> None:
    loaded = loaded_by("import limiter_cli.main")
    assert "typer" in loaded
    assert not loaded & {"pytest", "_pytest", "trio", "redis"}


@pytest.mark.parametrize("package", packages())
def test_every_package_is_typed(package: str) -> None:
    assert (packages()[package] / "py.typed").exists()


def test_the_page_names_each_file_of_the_redis_store() -> None:
    root = packages()["limiter_redis"]
    page = (root.parent / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("## The files of `limiter_redis`")
    named = set(re.findall(r"[\w/]+\.py", rest.partition("\n## ")[0]))
    files = {path.name for path in root.rglob("*.py")} - {"__init__.py"}
    assert {name.rpartition("/")[2] for name in named} == files


def test_the_page_names_each_file_of_the_adapters() -> None:
    root = packages()["limiter_redis"].parent
    page = (root / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("## The files of the adapters")
    _, *parts = re.split(r"\| \*\*`(\w+)`\*\* \| \|\n", rest.partition("\n## ")[0])
    named = {
        package: set(re.findall(r"`(\w+\.py)`", rows))
        for package, rows in zip(parts[::2], parts[1::2], strict=True)
    }
    folders = [path for path in (root / "adapters").iterdir() if (path / "__init__.py").exists()]
    assert named == {
        folder.name: {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        for folder in folders
    }
