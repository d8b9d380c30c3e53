"""Writes the reference of the command line from the commands: `python .ci/docs_cli.py`.

It reads what typer makes the help of: signatures, docstrings, and the help of each parameter. A
test compares docs/reference/cli.md with what this makes.
"""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import re
import typing
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from limiter_cli import exits
from limiter_cli.app import app

BEHIND = {"run": ["--", "COMMAND", "[ARG]..."]}
"""What stands behind a command and is no parameter of its function."""

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
BEGIN = """# The command line

The commands of `limiter`, with their arguments, options and exit statuses. They come with the extra
`cli`: `pip install "concurrency-limits[cli,redis]"`. `limiter serve` needs the extra `web` as well,
`limiter top` the extra `top`. This page is made of the help of the commands themselves:
`limiter COMMAND --help` shows the same.
"""


def text_of(help_text: str | None) -> str:
    """Return a docstring as Markdown: paragraphs on one line each, literal blocks as they are."""
    parts: list[str] = []
    for each in re.split(r"\n\s*\n", (help_text or "").strip()):
        if each.startswith("\b"):
            parts.append(f"```text\n{inspect.cleandoc(each[1:])}\n```")
        else:
            parts.append(" ".join(each.split()))
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """Return text that may stand in a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def value_of(default: Any, *, is_shown: bool) -> str:
    """Return what a parameter is if it is not given."""
    if default is inspect.Parameter.empty or default is ...:
        return "required"
    default = default.value if isinstance(default, enum.Enum) else default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"`{default}`" if is_shown and plain and default != "" else ""


def kind_of(info: OptionInfo, hint: Any) -> str:
    """Return the placeholder of an option's value; nothing for a flag."""
    kinds = [each for each in (typing.get_args(hint) or (hint,)) if each is not type(None)]
    if bool in kinds:
        return ""
    if info.metavar:
        return info.metavar
    if isinstance(kinds[0], type) and issubclass(kinds[0], enum.Enum):
        return "|".join(str(member.value) for member in kinds[0])
    return {int: "N", float: "NUMBER"}.get(kinds[0], "TEXT")


def row_of(parameter: inspect.Parameter, annotated: Any) -> tuple[bool, str]:
    """Return whether a parameter is an option, and its row."""
    hint, info = typing.get_args(annotated)[:2]
    assert isinstance(info, ArgumentInfo | OptionInfo), parameter
    if isinstance(info, OptionInfo):
        given = (info.default, *(info.param_decls or ()))  # typer takes the first for a default
        names = [each for each in given if isinstance(each, str) and each.startswith("-")]
        names = names or ["--" + parameter.name.replace("_", "-")]
        shown = ", ".join(f"`{name}`" for name in names)
        kind = kind_of(info, hint)
        shown += f" `{kind}`" if kind else ""
    else:
        shown = info.metavar or parameter.name.upper()
        if parameter.default is not parameter.empty:  # as typer shows it
            several = any(typing.get_origin(each) is list for each in typing.get_args(hint))
            shown = f"[{shown}]{'...' if several else ''}"
        shown = f"`{shown}`"
    said = info.help or ""
    if info.envvar:
        said += f" Or `{info.envvar}` in the environment."
    default = value_of(parameter.default, is_shown=bool(info.show_default))
    row = f"| {cell(shown)} | {cell(default)} | {cell(said)} |"
    return isinstance(info, OptionInfo), row


def command_text(info: CommandInfo) -> str:
    """Return the section of a command."""
    callback = info.callback
    assert callback is not None
    name = info.name or callback.__name__
    hints = typing.get_type_hints(callback, include_extras=True)
    rows = [
        row_of(parameter, hints[parameter.name])
        for parameter in inspect.signature(callback).parameters.values()
        if typing.get_origin(hints[parameter.name]) is typing.Annotated
        and not getattr(typing.get_args(hints[parameter.name])[1], "hidden", False)
    ]
    arguments = [row.split("`")[1].replace("\\|", "|") for is_option, row in rows if not is_option]
    usage = " ".join(["limiter", name, "[OPTIONS]", *arguments, *BEHIND.get(name, [])])
    said = text_of(info.help or inspect.getdoc(callback))
    parts = [f"## limiter {name}", f"```text\n{usage}\n```", said]
    if rows:
        ordered = [row for is_option in (False, True) for kind, row in rows if kind is is_option]
        parts.append("\n".join(["| | default | |", "|---|---|---|", *ordered]))
    return "\n\n".join(parts)


def statuses() -> str:
    """Return the exit statuses, and what each means."""
    tree = ast.parse(inspect.getsource(exits)).body
    rows = [
        f"| {value.value.value} | {cell(said.value.value)} |"
        for value, said in itertools.pairwise(tree)
        if isinstance(value, ast.Assign)
        and isinstance(value.value, ast.Constant)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
    ]
    return "\n".join(
        ["## Exit statuses", "", "| status | |", "|---|---|", "| 0 | success |", *rows]
    )


def page() -> str:
    """Return the whole page."""
    sections = [command_text(each) for each in app.registered_commands]
    return "\n\n".join([BEGIN.rstrip(), *sections, statuses()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
