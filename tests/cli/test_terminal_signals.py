"""`limiter top` and `limiter demo` at a terminal, when a signal ends or stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import PROGRAM


def _started(processes: Any, command: str, begin: str) -> tuple[Any, str, int]:
    """Start a command at a terminal; return it once it shows something, that, and its pid."""
    process = processes.start_at_terminal(command, TERM="xterm")
    shown = ""
    while not shown.endswith(begin):
        shown += process.stdout.read(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = map(int, children)
    return process, shown, child


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for a process in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize(
    ("command", "begin", "end"),
    [("top", "\x1b[?1049h", "\x1b[?1049l"), ("demo", "calls made", "\x1b[?25h")],
)
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(
    processes: Any, command: str, begin: str, end: str, number: int
) -> None:
    process, _, child = _started(processes, command, begin)

    os.kill(child, number)

    shown, errors = process.communicate(timeout=30)
    assert end in shown
    assert (process.returncode, errors) == (256 - number, "")


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for a process in /proc")
def test_a_demo_that_is_stopped_shows_the_cursor_and_hides_it_when_it_goes_on(
    processes: Any,
) -> None:
    """Its terminal has no other process here, so the signal itself stops nothing."""
    process, shown, child = _started(processes, "demo", "calls made")

    os.kill(child, signal.SIGTSTP)

    while not shown.endswith("\x1b[?25h"):
        shown += process.stdout.read(1)
    while not shown.endswith("\x1b[?25l"):
        shown += process.stdout.read(1)
    os.kill(child, signal.SIGTERM)
    shown, errors = process.communicate(timeout=30)
    assert "\x1b[?25h" in shown
    assert (process.returncode, errors) == (256 - signal.SIGTERM, "")


CLOSED_TERMINAL = """
import os, pty, sys
read_end, write_end = os.pipe()
child, terminal = pty.fork()
if child == 0:
    os.dup2(write_end, 2)
    os.execv(sys.argv[1], sys.argv[1:])
os.close(write_end)
shown = b""
while b"calls made" not in shown:
    shown += os.read(terminal, 65536)
os.close(terminal)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), os.read(read_end, 65536).decode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such terminals")
def test_a_demo_whose_terminal_is_closed_ends_by_the_signal_and_says_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CLOSED_TERMINAL, sys.executable, PROGRAM, "demo"],
        env={**os.environ, "TERM": "xterm"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert ended.stdout == f"-{signal.SIGHUP.value} \n"
