"""The commands in the pages: `make` has the targets, `limiter` the subcommands and options."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator

import pytest
from typer.models import ArgumentInfo, CommandInfo, OptionInfo
from typer.testing import CliRunner

from limiter_cli.app import app
from tests.project._tree import ROOT, code_blocks, pages

PAGES = pages()
COMMANDS = {
    info.name or getattr(info.callback, "__name__", ""): info for info in app.registered_commands
}
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"(?:^|[|;&(]|\bdo)\s*(?:\$ )?(?:[A-Z_]+=\S+ )*limiter ([a-z].*)$")


def calls() -> Iterator[tuple[str, str]]:
    """Yield each call of `limiter` in a block of commands, and its page."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for _, language, block in FENCE.findall(text):
            if language not in ("", "console"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                found = CALL.search(line)
                if found:
                    yield page, found[1]


def options_of(info: CommandInfo) -> dict[str, bool]:
    """Return the options of a command, and whether each takes a value."""
    assert info.callback is not None
    found: dict[str, bool] = {}
    for name, annotated in typing.get_type_hints(info.callback, include_extras=True).items():
        hint, *about = typing.get_args(annotated) or (None,)
        if not about or isinstance(about[0], ArgumentInfo):
            continue
        assert isinstance(about[0], OptionInfo)
        given = [each for each in (about[0].default, *(about[0].param_decls or ())) if each]
        names = [each for each in given if str(each).startswith("-")]
        names = names or ["--" + name.replace("_", "-")]
        found.update(dict.fromkeys(map(str, names), bool not in (hint, *typing.get_args(hint))))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_make_has_the_targets(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+(?:-[a-z0-9]+)*)", text, re.MULTILINE)) <= targets


def test_there_are_calls_of_the_command() -> None:
    assert len(list(calls())) > 20


@pytest.mark.parametrize(("page", "call"), sorted(set(calls())))
def test_the_command_has_what_a_page_gives_it(page: str, call: str) -> None:
    words = shlex.split(call.partition(" &")[0], comments=True)
    assert words[0] in COMMANDS, f"{page}: limiter {call}"
    options = options_of(COMMANDS[words[0]])
    for word in words[1:]:
        if word == "--":
            break
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{page}: limiter {call}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_argument_that_may_be_left_out_stands_in_brackets(name: str) -> None:
    """(typer puts them there.)"""
    callback = COMMANDS[name].callback
    assert callback is not None
    usage = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "100"}).output.strip()
    usage = usage.partition("\n")[0]
    assert "[[" not in usage
    parameters = inspect.signature(callback).parameters
    for argument, hint in typing.get_type_hints(callback, include_extras=True).items():
        about = typing.get_args(hint)[1:2]
        if not about or not isinstance(about[0], ArgumentInfo) or about[0].hidden:
            continue
        if parameters[argument].default is not inspect.Parameter.empty:
            assert f"[{about[0].metavar or argument.upper()}]" in usage


def test_what_pages_install_can_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for extras in re.findall(r"(?:concurrency-limits|\"\.)\[([\w,-]+)\]", text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page


def test_toml_in_pages_can_be_read() -> None:
    blocks = [block for page in PAGES for block in code_blocks(page, "toml")]
    assert blocks
    for block in blocks:
        assert tomllib.loads(block.text), block
