"""The repository, as the tests of the project see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


def packages() -> dict[str, Path]:
    """Return the packages of the distribution, by import name."""
    candidates = [*ROOT.glob("limiter_*"), *ROOT.glob("adapters/limiter_*")]
    return {path.name: path for path in sorted(candidates) if (path / "__init__.py").exists()}


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield the import name and the file of each module of a package."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


class Block(NamedTuple):
    """A block of code in a Markdown page, and where it begins."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def code_blocks(page: str, language: str) -> list[Block]:
    """Return the blocks of a language in a page, without the indent they stand at."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    fenced = rf"^( *)```{language}\n(.*?)^\1```$"
    for match in re.finditer(fenced, text, re.DOTALL | re.MULTILINE):
        code = re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE)
        found.append(Block(page, text.count("\n", 0, match.start()) + 2, code))
    return found
