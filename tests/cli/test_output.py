"""What is printed: text is only ever shown, on a terminal and in a pipe."""

import ast
import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.columns import Columns
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import limiter_cli
from limiter_cli.output import PrintableConsole, print_line, printable
from limiter_core import LIMIT_BY, ConcurrencyLimit

ESCAPE = "\x1b]0;owned\x07"


def shown(renderable):
    """What a terminal gets that knows no styles."""
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=True, no_color=True, width=80)
    console.print(renderable)
    return file.getvalue()


def in_a_table(text):
    table = Table("key", title=text, caption=text)
    table.add_row(text)
    return table


@pytest.mark.parametrize("within", [Text, str, Panel, in_a_table, lambda text: Columns([text])])
@settings(deadline=None)
@given(text=st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "L"]), min_size=1))
def test_no_text_reaches_a_terminal_that_it_would_obey(within, text):
    told = shown(within(text.replace("[", "(")))

    assert all(c.isprintable() or c == "\n" for c in _without_styles(told))


def _without_styles(text):
    """Text without what the console itself has put in: bold, italic and the like."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_styles_still_work():
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=True, color_system="standard")

    print_line(f"bad {ESCAPE}", style="red", to=console)

    assert file.getvalue() == "\x1b[31mbad ?]0;owned\x1b[0m\n"


def test_printable_text_is_left_as_it_is():
    assert printable("ключ 鍵 é 1 & 2") == "ключ 鍵 é 1 & 2"
    assert printable("a\nb\x1b[2J\u202ec") == "a?b?[2J?c"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["ls"], ["ls", "--json"]])
def test_output_that_cannot_be_written_is_an_error_in_one_line(processes, arguments):
    with Path("/dev/full").open("w") as full:
        process = processes.start(*arguments, stdout=full)
        _, told = process.communicate(timeout=30)

    assert process.returncode == 74
    assert told == "limiter: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["evict"], 2),
        (["ls", "--url", "redis://127.0.0.1:1"], 69),
        (["run", "k", "--", "no-such"], 127),
    ],
)
def test_an_error_that_cannot_be_written_has_its_status(processes, arguments, status):
    with Path("/dev/full").open("w") as full:
        process = processes.start(*arguments, stderr=full, pass_fds=())
        process.communicate(timeout=30)

    assert process.returncode == status


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipe")
def test_an_error_that_nobody_reads_has_its_status(processes):
    unread, closed = os.pipe()
    os.close(unread)
    process = processes.start("run", "k", "--", "no-such", stderr=closed, pass_fds=())
    os.close(closed)
    process.communicate(timeout=30)

    assert process.returncode == 127


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_where_nothing_can_be_written_the_status_says_it(processes):
    with Path("/dev/full").open("w") as full:
        process = processes.start("--version", stdout=full, stderr=full, pass_fds=())
        process.communicate(timeout=30)

    assert process.returncode == 74


@pytest.mark.skipif(os.name != "posix", reason="only there a process starts without an output")
@pytest.mark.parametrize("arguments", [["--version"], ["show", "k"], ["ls", "--json"]])
def test_without_an_output_nothing_is_printed(processes, arguments):
    process = processes.start(*arguments, preexec_fn=lambda: os.close(1))
    _, told = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Traceback" not in told


@pytest.mark.skipif(os.name != "posix", reason="only there a process starts without an input")
def test_without_an_input_nothing_is_asked(processes, limiter, key):
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(key))):
        process = processes.start("pause", f"{key}*", preexec_fn=lambda: os.close(0))
        _, told = process.communicate(timeout=30)

    assert process.returncode == 2
    assert told == f"limiter: 1 key matches '{key}*': give --yes to change all of them\n"


def test_nothing_is_printed_but_through_one_module():
    """Whoever prints by itself would have to remember all this."""
    folder = Path(limiter_cli.__file__).parent
    found = [
        f"{path.relative_to(folder)}:{node.lineno}"
        for path in sorted(folder.rglob("*.py"))
        if path.name != "output.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _prints(node)
    ]

    assert found == []


def _prints(node):
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called in ("print", "Console", "typer.echo", "typer.secho", "rich.print") or (
        called.startswith(("sys.stdout.", "sys.stderr.")) and not called.endswith(".isatty")
    )
