"""`limiter run` as a process: overlap, signals, lost leases, and its own violent end."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

TOLD = """
    import signal, sys, time
    def tell(number, frame):
        print(signal.Signals(number).name, flush=True)
        if number in (signal.SIGTERM, signal.SIGINT):
            sys.exit(9)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), tell)
    print("runs", flush=True)
    while True:
        time.sleep(60)
"""


def python(code):
    return ("--", sys.executable, "-c", textwrap.dedent(code))


@pytest.fixture
def listener(processes, key):
    """Start a command that prints the signals it gets, under the test's key; wait until it runs."""

    def start(*options):
        process = processes.start("run", key, *options, *python(TOLD))
        assert process.stdout.readline() == "runs\n"
        return process

    return start


def is_waiting(limiter, key, count=1):
    return lambda: limiter.inspect(key).waiting == count


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def children_of(pid):
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (fields := status_of(entry)) and fields["PPid"] == str(pid)
    ]


def status_of(entry):
    """Return what Linux tells of a process; nothing, if it has ended."""
    with contextlib.suppress(OSError):
        lines = (entry / "status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def renewal(limiter, key):
    """Return a condition: the lease of the one holder was renewed."""
    last = limiter.inspect(key).holders[0].expires_in

    def is_renewed():
        nonlocal last
        before, last = last, limiter.inspect(key).holders[0].expires_in
        return last > before

    return is_renewed


def is_pending(pid, number):
    fields = status_of(Path(f"/proc/{pid}"))
    return bool((int(fields["ShdPnd"], 16) | int(fields["SigPnd"], 16)) & 1 << number - 1)


def test_two_processes_at_a_limit_of_one_do_not_overlap(processes, key, tmp_path):
    book = tmp_path / "book"
    code = f"""
        import os, time
        book = os.open({str(book)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(book, b"in ")
        time.sleep(0.05)
        os.write(book, b"out ")
    """

    started = [processes.start("run", key, *python(code)) for _ in range(3)]

    assert [process.wait(30) for process in started] == [0, 0, 0]
    assert book.read_text().split() == ["in", "out"] * 3


def test_signals_are_passed_on_and_the_status_comes_back(listener):
    process = listener()

    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGINT"):
        process.send_signal(getattr(signal, name))
        assert process.stdout.readline() == f"{name}\n"

    assert process.wait(30) == 9


def test_a_command_that_dies_of_a_signal_is_128_and_its_number(processes, key):
    process = processes.start("run", key, *python("print('runs', flush=True); input()"), stdin=-1)
    process.stdout.readline()

    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 128 + signal.SIGTERM


def test_a_signal_that_was_ignored_before_stays_so(processes, key):
    process = processes.start(
        "run",
        key,
        *python("import signal; print(signal.getsignal(signal.SIGHUP).name)"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )

    assert process.communicate(timeout=30)[0] == "SIG_IGN\n"


BEGINS = """
    class Interrupts:
        def find_spec(self, name, path, target=None):
            if name == "limiter_cli.app":
                os.kill(os.getpid(), signal.SIGINT)

    sys.meta_path.insert(0, Interrupts())
    from limiter_cli.main import app
"""
BUILDS = """
    import typer.main

    def interrupted(app):
        os.kill(os.getpid(), signal.SIGINT)

    typer.main.get_command = interrupted
    from limiter_cli.main import app
    app()
"""


@pytest.mark.parametrize("moment", [BEGINS, BUILDS], ids=["it is imported", "it is built"])
def test_a_ctrl_c_while_it_begins_prints_no_traceback(processes, moment):
    code = f"import os, signal, sys\n{textwrap.dedent(moment)}"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env=processes.environment,
        timeout=30,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_waiting_leaves_the_queue(processes, limiter, key, wait_until, name):
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(key))):
        process = processes.start("run", key, *python("print('ran')"))
        wait_until("it waits", is_waiting(limiter, key))

        process.send_signal(signal.SIGUSR1)  # is for the command, which is not there yet
        process.send_signal(getattr(signal, name))

        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (128 + getattr(signal, name), "", "")
        assert limiter.inspect(key).waiting == 0
    assert key not in set(limiter.keys())


def test_an_evicted_holder_s_command_is_ended_and_the_next_runs(
    listener, processes, limiter, key, wait_until
):
    process = listener()
    waiting = processes.start("run", key, *python("print('mine now')"))
    wait_until("it waits", is_waiting(limiter, key))
    (holder,) = limiter.inspect(key).holders

    assert processes.start("evict", holder.id).wait(30) == 0

    assert process.stdout.readline() == "SIGTERM\n"
    assert process.wait(30) == 124
    assert "it was evicted; ending the command" in process.stderr.read()
    assert waiting.communicate(timeout=30)[0] == "mine now\n"


def full_pipe():
    """Return both ends of a pipe that takes no more."""
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x" * 4096):
            pass
    os.set_blocking(full, True)
    return unread, full


@pytest.mark.parametrize(
    "ends",
    [
        "evict",
        pytest.param(
            "the supervisor is killed",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc"),
        ),
    ],
)
def test_a_command_is_ended_though_nobody_reads_what_is_said_of_it(processes, limiter, key, ends):
    """The pipe of stderr is full: it has to end before it is said why."""
    unread, full = full_pipe()
    try:
        # Below a shell: Linux itself ends the command where the supervisor is killed.
        command = ("sh", "-c", '"$0" -c "$1" & wait', sys.executable, textwrap.dedent(TOLD))
        process = processes.start("run", key, "--", *command, stderr=full, pass_fds=())
        assert process.stdout.readline() == "runs\n"

        if ends == "evict":
            assert limiter.evict(limiter.inspect(key).holders[0].id)
        else:
            os.kill(*children_of(process.pid), signal.SIGKILL)

        assert process.stdout.readline() == "SIGTERM\n"
    finally:
        os.close(unread)
        os.close(full)
    assert process.wait(30) == (124 if ends == "evict" else 137)


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
def test_a_command_that_does_not_end_is_killed_though_nobody_reads_what_is_said_of_it(
    processes, key, wait_until
):
    """What watches over it is killed, so `limiter` itself has to kill it."""
    unread, full = full_pipe()
    try:
        stubborn = (
            "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
            "print(os.getpid(), flush=True); time.sleep(60)"
        )
        command = ("sh", "-c", '"$0" -c "$1" & wait', sys.executable, stubborn)
        options = ("--kill-after", "0.1")
        process = processes.start("run", key, *options, "--", *command, stderr=full, pass_fds=())
        stays = int(process.stdout.readline())

        os.kill(*children_of(process.pid), signal.SIGKILL)

        wait_until("the command is gone", lambda: is_gone(stays))
    finally:
        os.close(unread)
        os.close(full)
    assert process.wait(30) == 137


def test_a_command_that_does_not_end_is_killed(processes, limiter, key, run, url):
    stubborn = (
        "import signal; signal.signal(15, signal.SIG_IGN); print('runs', flush=True); input()"
    )
    process = processes.start("run", key, "--kill-after", "0.1", *python(stubborn), stdin=-1)
    process.stdout.readline()

    run("evict", "--all-of", key, "--url", url)

    assert process.wait(30) == 124


def test_the_latest_wins_where_it_is_said_so(listener, processes, key):
    process = listener("--on-conflict", "cancel_running")
    latest = processes.start("run", key, "--on-conflict", "cancel_running", *python("print('ran')"))

    assert process.wait(30) == 124
    assert process.stdout.read() == "SIGTERM\n"
    assert latest.communicate(timeout=30)[0] == "ran\n"


def test_kill_9_frees_the_slot_within_a_lease_and_takes_the_command_along(
    processes, key, wait_until
):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = processes.start("run", key, "--lease", "1", *python(code))
    command = int(process.stdout.readline())

    process.kill()

    following = processes.start("run", key, "--timeout", "20", *python("print('mine now')"))
    assert following.communicate(timeout=30)[0] == "mine now\n"
    if sys.platform == "linux":
        wait_until("the command is gone", lambda: is_gone(command))
    else:
        os.kill(command, signal.SIGKILL)


def test_a_store_that_goes_away_for_longer_than_a_lease_ends_the_command(processes, key):
    from tests.redis._servers import Process, binary

    server = Process(binary())
    try:
        options = ("--url", server.url, "--lease", "1")
        process = processes.start("run", key, *options, *python(TOLD))
        assert process.stdout.readline() == "runs\n"

        server.kill()

        assert process.stdout.readline() == "SIGTERM\n"
        assert process.wait(30) == 124
        assert "could not be reached before the lease ended" in process.stderr.read()
    finally:
        server.close()


def test_files_that_were_open_are_open_for_the_command(processes, key):
    reading, writing = os.pipe()
    code = f"import os; os.write({writing}, b'hello')"

    process = processes.start("run", key, *python(code), pass_fds=[writing])
    os.close(writing)

    assert process.wait(30) == 0
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"hello"
