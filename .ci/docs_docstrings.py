"""An extension of griffe: docstrings as the site wants them, and no warning about one.

`Text::` before a block becomes `Text:`, since the pages are Markdown. The type of a validated field
is shown without what validates it. A name of the reference in
backticks becomes a link to it: a public name anywhere, a method in the docstrings of its class.
What a class has from a private one is shown as its own.
"""

from __future__ import annotations

import copy
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NAME = re.compile(r"(?<![`\[\w])`([A-Za-z_]\w*)(?:\.(\w+))?(\(\))?`(?![`\]\w])")


@cache
def documented() -> dict[str, list[str]]:
    """Return the paths of what the reference has, by the last name of each."""
    found: dict[str, list[str]] = {}
    for page in sorted(REFERENCE.rglob("*.md")):
        for path in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(path.rpartition(".")[2], []).append(path)
    return found


def path_of(name: str, package: str) -> str | None:
    """Return the path of a name in the docstrings of a package, if only one is meant."""
    paths = documented().get(name, [])
    for first in (
        [path for path in paths if path.rpartition(".")[0] == each]
        for each in (package, "limiter_core")
    ):
        if len(first) == 1:
            return first[0]
    return paths[0] if len(paths) == 1 else None


class Strict(logging.Handler):
    """Ends the build at a warning: zensical does not count those of griffe and mkdocstrings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise the warning, through the code that sent it."""
        raise ValueError(record.getMessage())


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its object was read."""

    def __init__(self) -> None:
        """Make warnings errors, as `--strict` does elsewhere."""
        super().__init__()
        for name in ("griffe", "mkdocs", "mkdocstrings"):
            logging.getLogger(name).addHandler(Strict(logging.WARNING))

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Show the type of a validated field, without what validates it."""
        annotation = attr.annotation
        if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
            inner = annotation.slice
            attr.annotation = inner.elements[0] if isinstance(inner, griffe.ExprTuple) else inner

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is None:
            return
        text = re.sub(r"::$", ":", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = self._with_links(text, obj)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give a class of the reference the methods that it has from a private one."""
        for path in (path for paths in documented().values() for path in paths):
            package, _, name = path.rpartition(".")
            if package != pkg.path or not isinstance(pkg.members.get(name), griffe.Alias):
                continue
            found = pkg.members[name].final_target
            if isinstance(found, griffe.Class):
                for inherited in found.inherited_members.values():
                    self._adopt(inherited.final_target, found)

    def _adopt(self, method: griffe.Object | griffe.Alias, by: griffe.Class) -> None:
        """Show a method of a private class as one of the class that inherits it, after its own."""
        if not isinstance(method, griffe.Function) or path_of(method.parent.name, by.module.path):
            return
        adopted = copy.copy(method)
        by.set_member(method.name, adopted)
        if method.docstring is not None:
            adopted.docstring = copy.copy(method.docstring)
            adopted.docstring.parent = adopted
            adopted.docstring.value = self._with_links(method.docstring.value, adopted)

    def _with_links(self, text: str, obj: griffe.Object) -> str:
        return "".join(
            part if index % 2 else NAME.sub(lambda match: self._linked(match, obj), part)
            for index, part in enumerate(re.split(r"(^ {8,}.*$|^ {4}\S.*\n\n)", text))
        )

    def _linked(self, match: re.Match[str], obj: griffe.Object) -> str:
        name, member, called = match.groups()
        owner = obj if isinstance(obj, griffe.Class) else obj.parent
        module = obj.module.path
        if member or name == obj.name:
            return match[0]
        if isinstance(owner, griffe.Class) and isinstance(owner.members.get(name), griffe.Function):
            of_class = path_of(owner.name, module)
            target = f"{of_class}.{name}" if of_class and not name.startswith("_") else None
        else:
            target = path_of(name, module)
        return f"[`{name}{called or ''}`][{target}]" if target else match[0]
