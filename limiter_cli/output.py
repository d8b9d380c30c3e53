"""All that the command prints goes through here, so that no text can control the terminal.

Ids, labels, keys and groups come from users, and from users of users: a job's id may be the text of
a customer. What a terminal would obey, or could not show, becomes a `?` (`printable`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

__all__ = ("PrintableConsole", "console", "errors", "print_json", "print_line", "printable")

_WIDE = 1_000_000
"""Columns: where the output is no terminal, nothing is folded or cut."""

_LINE_BREAKS = re.compile(r"(\n)")


def printable(text: str) -> str:
    """Return text as a terminal or a page can show it: a `?` for each character that is no glyph.

    That includes escapes, line breaks, and marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


class PrintableConsole(Console):
    """A console on which texts are only shown, whatever they contain; its own styles work.

    Texts that stand in columns are better made `printable` before: a control character has no
    width, and the `?` in its place has one.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of something; what is text in them is printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                parts = _LINE_BREAKS.split(segment.text)
                text = "".join(part if part == "\n" else printable(part) for part in parts)
                yield Segment(text, segment.style)


class _ErrorConsole(PrintableConsole):
    """The console of stderr: where nobody reads it, that is for the caller to know."""

    def on_broken_pipe(self) -> None:
        """Raise the error; rich would exit with 1, from wherever a message is printed."""
        raise  # noqa: PLE0704  (it is called where the error is handled)


def console() -> Console:
    """Return the console of stdout; as wide as the text where that is no terminal, or closed."""
    stdout: TextIO | None = sys.stdout
    is_terminal = stdout is not None and stdout.isatty()
    return PrintableConsole() if is_terminal else PrintableConsole(width=_WIDE)


def errors() -> Console:
    """Return the console of stderr."""
    return _ErrorConsole(stderr=True)


def print_line(text: str, *, style: str = "", to: Console | None = None) -> None:
    """Print text on a line of its own, whole; line breaks in it stay."""
    (to or console()).print(Text(text, style=style), soft_wrap=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON as it is, on a terminal too; it escapes what is not ASCII by itself."""
    print(json.dumps(value, indent=indent), flush=True)  # noqa: T201  (also where it is closed)
