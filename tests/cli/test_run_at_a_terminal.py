"""`limiter run` at a terminal: what a Ctrl-C reaches, and when."""

import contextlib
import os
import signal
import sys

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit
from tests._polling import until_now

from .test_run_processes import children_of, is_pending, is_waiting, python, renewal


def until_it_says(process, what):
    while what not in process.stdout.readline():
        pass


def test_a_ctrl_c_at_the_terminal_reaches_the_command_once(processes, key):
    """The terminal sends it to both processes; `limiter run` must not send it again."""
    count = """
        import signal, sys
        seen = []
        def on_interrupt(*_):
            seen.append(1)
            print("interrupted", flush=True)
        def on_question(*_):
            print("interrupts:", len(seen), flush=True)
            sys.exit()
        signal.signal(signal.SIGINT, on_interrupt)
        signal.signal(signal.SIGUSR1, on_question)
        print("runs", flush=True)
        while True:
            signal.pause()
    """
    process = processes.start_at_terminal("run", key, *python(count))
    until_it_says(process, "runs")
    (run,) = children_of(process.pid)
    for _ in range(2):
        process.stdin.write("\x03")
        process.stdin.flush()
        until_it_says(process, "interrupted")

    os.kill(run, signal.SIGUSR1)  # it is passed on behind what else would be

    assert "interrupts: 2" in process.communicate(timeout=30)[0]
    assert process.returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            python(
                "import os, signal; os.setpgid(0, 0); print('runs', flush=True); signal.pause()"
            ),
            id="that has left the process group, as timeout does",
        ),
        pytest.param(
            ("--", "sh", "-c", "sleep 600 & echo runs; wait"),  # a shell has that ignore Ctrl-C
            id="and what it leaves",
        ),
    ],
)
def test_a_ctrl_c_at_the_terminal_ends_a_command(processes, key, command):
    process = processes.start_at_terminal("run", key, *command)
    until_it_says(process, "runs")
    process.stdin.write("\x03")
    process.stdin.flush()
    assert process.wait(30) == 128 + signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for a process in /proc")
@pytest.mark.parametrize("seen_late", [False, True])
def test_a_ctrl_c_at_the_terminal_before_the_command_runs_is_not_lost(
    processes, limiter, key, wait_until, seen_late
):
    """What the terminal sends reaches what is there; the command comes a moment later.

    `limiter run` may see that only when the command is there, as on a busy machine.
    """
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(key))):
        # (A Python that is interrupted while it starts ends with a status of its own.)
        lease = "--lease=9" if seen_late else "--lease=1"  # it has to outlast the stop
        process = processes.start_at_terminal("run", key, lease, "--", "cat")
        wait_until("it waits", is_waiting(limiter, key))
        (run,) = children_of(process.pid)
        (supervisor,) = children_of(run)
        os.kill(supervisor, signal.SIGSTOP)
    # It renews its lease only after it has asked for the command.
    wait_until("it has the slot", lambda: limiter.inspect(key).holders)
    wait_until("its lease is renewed", renewal(limiter, key))

    if seen_late:
        os.kill(run, signal.SIGSTOP)
    process.stdin.write("\x03")
    process.stdin.flush()
    wait_until("the terminal has sent it", lambda: is_pending(supervisor, signal.SIGINT))
    os.kill(supervisor, signal.SIGCONT)
    if seen_late:
        with contextlib.suppress(AssertionError):  # now and then it had not asked for it yet
            until_now(lambda: children_of(supervisor), "the command is there", patience=3.0)
        os.kill(run, signal.SIGCONT)

    assert process.wait(30) == 128 + signal.SIGINT
