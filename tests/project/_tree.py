"""The repository, as the tests of the project see it."""

from __future__ import annotations

import functools
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

IN_REPOSITORY = "https://github.com/concurrency-limits/concurrency-limits/"
"""How a page of the site links to a file that is not on the site."""


@functools.cache
def packages() -> dict[str, Path]:
    """Return the packages of the distribution, by import name."""
    candidates = [*ROOT.glob("limiter_*"), *ROOT.glob("adapters/limiter_*")]
    return {path.name: path for path in sorted(candidates) if (path / "__init__.py").exists()}


@functools.cache
def modules(package: Path) -> list[tuple[str, Path]]:
    """Return the import name and the file of each module of a package."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def pages() -> list[str]:
    """Return the Markdown pages that people read: those of the site, and those at the top."""
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def script(path: str) -> ModuleType:
    """Return a file of `.ci`, which is no package, as a module."""
    name = Path(path).stem
    spec = spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Block(NamedTuple):
    """A block of code in a page: where it begins, its title (a file's name), and its output."""

    page: str
    line: int
    text: str
    title: str = ""
    prints: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def code_blocks(page: str, language: str) -> list[Block]:
    """Return the blocks of a language in a page, without the indent they stand at."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    fenced = rf'^( *)```{language}(?: title="([^"]*)")?\n(.*?)^\1```$'
    for match in re.finditer(fenced, text, re.DOTALL | re.MULTILINE):
        code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 2
        printed = re.match(r"\s*It prints:\n\n```text\n(.*?)```", text[match.end() :], re.DOTALL)
        found.append(Block(page, line, code, match[2] or "", printed and printed[1]))
    return found


def headings_of(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in found}
