"""`limiter run`: what becomes of the processes that the command itself starts."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import limiter_cli.run.supervisor as supervisor_script
from limiter_core import LIMIT_BY, ConcurrencyLimit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes and signals are POSIX's")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")

WAITS = 30.0

WORK = "sh -c 'echo $$ > {file}; exec sleep 60'"
"""Work that a shell starts: it writes its process's id."""

DETACHED = "setsid sh -c 'echo $$ > {file}; exec sleep 60'"
"""The same, in a session of its own."""

STUBBORN = "sh -c \"trap '' TERM; echo \\$\\$ > {file}; while :; do sleep 1; done\""
"""The same, which ignores TERM."""


def state_of(pid):
    """Return the letter that Linux has for the state of a process; X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def is_alive(pid):
    return state_of(pid) not in ("Z", "X")


def has_threads(pid):
    """Whether a process has threads that run, though the first one may have ended."""
    threads = Path(f"/proc/{pid}/task")
    return threads.exists() and any(
        is_alive(f"{pid}/task/{each.name}") for each in threads.iterdir()
    )


if sys.platform != "linux":

    def is_alive(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def work(tmp_path, wait_until):
    """Work that a command starts: the shell's words for it, and its process once it runs."""

    class Work:
        file = tmp_path / "pid"

        def command(self, template, then="true"):
            then = then if template.endswith("&") else f"; {then}"
            return ("--", "sh", "-c", f"{template.format(file=self.file)} {then}")

        def pid(self):
            wait_until("the work runs", lambda: self.file.exists() and self.file.read_text())
            return int(self.file.read_text())

    work = Work()
    yield work
    if work.file.exists() and is_alive(pid := int(work.file.read_text())):
        os.kill(pid, signal.SIGKILL)


def evict(processes, key, process):
    assert processes.start("evict", "--all-of", key).wait(WAITS) == 0


def terminate(processes, key, process):
    process.terminate()


def interrupt(processes, key, process):
    process.send_signal(signal.SIGINT)


def supervisor_of(process):
    """Return the process that watches over the command: the one child of `limiter run`."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    [supervisor] = map(int, children.read_text().split())
    return supervisor


def kill_supervisor(processes, key, process):
    os.kill(supervisor_of(process), signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        pytest.param(evict, 124, id="evicted"),
        pytest.param(terminate, 128 + signal.SIGTERM, id="TERM"),
        pytest.param(interrupt, 128 + signal.SIGINT, id="INT"),
        pytest.param(None, 124, id="max-hold"),
    ],
)
@pytest.mark.parametrize(
    "template",
    [
        pytest.param(WORK, id="in-its-group"),
        pytest.param(DETACHED, marks=linux_only, id="detached"),
        pytest.param(STUBBORN, id="ignores-TERM"),
    ],
)
def test_all_that_a_shell_started_has_ended_before_the_slot_passes_on(  # noqa: PLR0917
    processes, key, work, template, end, status
):
    options = ("--kill-after", "0.3", *(("--max-hold", "3") if end is None else ()))
    process = processes.start("run", key, *options, *work.command(template))
    pid = work.pid()

    if end is not None:
        end(processes, key, process)

    assert process.wait(WAITS) == status
    assert not is_alive(pid)


@pytest.mark.parametrize("template", [pytest.param(WORK), pytest.param(DETACHED, marks=linux_only)])
def test_the_slot_is_held_until_the_last_process_has_ended(processes, key, limiter, work, template):
    process = processes.start("run", key, *work.command(f"{template} &", then="exit 3"))
    pid = work.pid()
    other = processes.start("run", key, "--timeout", "0.5", "--", "true")

    assert other.wait(WAITS) == 75
    assert process.poll() is None

    os.kill(pid, signal.SIGKILL)

    assert process.wait(WAITS) == 3
    assert limiter.inspect(key).in_use == 0


def test_a_lease_that_is_lost_after_the_command_ended_ends_what_it_left(
    processes, key, work, limiter, wait_until
):
    process = processes.start("run", key, *work.command(f"{WORK} &", then="exit 3"))
    pid = work.pid()

    evict(processes, key, process)

    assert process.wait(WAITS) == 124
    assert not is_alive(pid)


@pytest.mark.parametrize(
    "template", [pytest.param(WORK), pytest.param(DETACHED, marks=linux_only), STUBBORN]
)
def test_kill_9_of_limiter_run_ends_all_that_was_started(
    processes, key, work, template, wait_until
):
    process = processes.start("run", key, "--kill-after", "0.3", *work.command(template))
    pid = work.pid()

    process.kill()

    wait_until("the work is ended", lambda: not is_alive(pid))


@linux_only
@pytest.mark.parametrize("template", [WORK, DETACHED, STUBBORN])
def test_kill_9_of_the_supervisor_ends_all_that_was_started_before_the_slot_passes_on(
    processes, key, work, template
):
    process = processes.start("run", key, "--kill-after", "0.3", *work.command(template))
    pid = work.pid()

    kill_supervisor(processes, key, process)

    assert process.wait(WAITS) == 128 + signal.SIGKILL
    assert not is_alive(pid)
    assert "what watches over the command was killed" in process.stderr.read()


@linux_only
@pytest.mark.parametrize("end", [evict, terminate, kill_supervisor])
def test_a_process_whose_first_thread_has_ended_is_ended(processes, key, work, wait_until, end):
    """It looks like one that has ended: a zombie, though other threads of it run."""
    code = """
        import ctypes, os, sys, threading, time

        def work():
            with open(sys.argv[1], "w") as file:
                file.write(str(os.getpid()))
            while True:
                time.sleep(1)

        threading.Thread(target=work).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    command = (sys.executable, "-c", textwrap.dedent(code), str(work.file))
    shell = ("sh", "-c", '"$@"; true', "sh", *command)
    process = processes.start("run", key, "--kill-after", "0.3", "--", *shell)
    pid = work.pid()
    wait_until("its first thread has ended", lambda: state_of(pid) == "Z")

    end(processes, key, process)

    try:
        process.wait(WAITS)
        assert not has_threads(pid)
    finally:
        if has_threads(pid):
            os.kill(pid, signal.SIGKILL)


@linux_only
@pytest.mark.parametrize("end", [evict, terminate])
def test_a_supervisor_that_was_stopped_goes_on_to_end_all(processes, key, work, end):
    process = processes.start("run", key, "--kill-after", "0.3", *work.command(WORK))
    pid = work.pid()
    supervisor = supervisor_of(process)
    os.kill(supervisor, signal.SIGSTOP)

    end(processes, key, process)

    try:
        process.wait(WAITS)
        assert not is_alive(pid)
    finally:
        if process.poll() is None:
            os.kill(supervisor, signal.SIGCONT)


@linux_only
def test_a_supervisor_that_was_stopped_lets_a_call_leave_the_queue(
    processes, key, limiter, wait_until
):
    holder = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant(key)))
    process = processes.start("run", key, "--", "true")
    wait_until("it waits", lambda: limiter.inspect(key).waiting == 1)
    supervisor = supervisor_of(process)
    os.kill(supervisor, signal.SIGSTOP)

    process.terminate()

    try:
        assert process.wait(WAITS) == 128 + signal.SIGTERM
    finally:
        if process.poll() is None:
            os.kill(supervisor, signal.SIGCONT)
    holder.release()


def test_what_was_there_before_is_neither_waited_for_nor_ended(processes, key, work):
    """A shell's own children, when it has replaced itself by `limiter run`."""
    limiter = f"{sys.executable} -c 'from limiter_cli.main import app; app()'"
    shell = subprocess.Popen(
        ["sh", "-c", f"{WORK.format(file=work.file)} & exec {limiter} run {key} -- sh -c 'exit 5'"],
        env=processes.environment,
        start_new_session=True,
    )

    assert shell.wait(WAITS) == 5
    assert is_alive(work.pid())


@linux_only
def test_as_pid_1_it_ends_what_it_started(processes, key, work, wait_until):
    unshare = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("a PID namespace needs util-linux's unshare, and root")
    code = "from limiter_cli.main import app; app()"
    tells = 'trap "echo down > {file}; exit" TERM; echo up > {file}; sleep 60 & wait'
    process = subprocess.Popen(
        [
            *unshare,
            sys.executable,
            "-c",
            code,
            "run",
            key,
            *work.command(f"setsid sh -c '{tells}'"),
        ],
        env=processes.environment,
        start_new_session=True,
    )
    wait_until("the work runs", lambda: work.file.exists() and work.file.read_text() == "up\n")

    evict(processes, key, process)

    assert process.wait(WAITS) == 124
    assert work.file.read_text() == "down\n"
    work.file.unlink()


class TestWithoutASubreaper:
    """What stands for all that was started on other systems than Linux: the process group."""

    SUPERVISOR = (
        "import sys; import limiter_cli.run.supervisor as it; it._LINUX = False; "
        "it.main(int(sys.argv[1]), set())"
    )

    @pytest.fixture
    def supervisor(self):
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-c", self.SUPERVISOR, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(WAITS)
        with ours, process, ours.makefile("rw") as stream:
            yield stream
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(WAITS)

    @staticmethod
    def tell(supervisor, **message):
        supervisor.write(json.dumps(message) + "\n")
        supervisor.flush()

    def start(self, supervisor, work, template, then="true"):
        command = work.command(template, then=then)[1:]
        given = {"command": command, "environment": dict(os.environ), "kill_after": 0.3}
        self.tell(supervisor, start=given)
        assert "started" in json.loads(supervisor.readline())
        return work.pid()

    @pytest.mark.parametrize("template", [WORK, STUBBORN])
    def test_the_group_is_ended(self, supervisor, work, template):
        pid = self.start(supervisor, work, template)

        self.tell(supervisor, end=0.3)

        assert "ended" in json.loads(supervisor.readline())
        assert json.loads(supervisor.readline()) == {"empty": True}
        assert not is_alive(pid)

    def test_the_end_of_the_group_is_noticed(self, supervisor, work):
        pid = self.start(supervisor, work, f"{WORK} &", then="exit 3")
        assert json.loads(supervisor.readline()) == {"ended": 3}

        os.kill(pid, signal.SIGKILL)

        assert json.loads(supervisor.readline()) == {"empty": True}


def test_the_supervisor_hands_on_signals_that_mean_no_end_to_the_command_alone(
    processes, key, work
):
    """HUP would end the work, which does not expect it."""
    traps = "trap 'echo hup' HUP; trap 'exit 7' USR1"
    background = WORK.format(file=work.file)
    shell = f"{traps}; {background} & echo runs; while :; do wait; done"
    process = processes.start("run", key, "--", "sh", "-c", shell)
    assert process.stdout.readline() == "runs\n"
    pid = work.pid()

    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "hup\n"
    assert is_alive(pid)

    process.send_signal(signal.SIGUSR1)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(WAITS) == 7


@linux_only
def test_a_ctrl_c_between_fork_and_exec_ends_the_command_before_it_begins(tmp_path, wait_until):
    """What the terminal sends reaches what is to become the command; nothing else handles it."""
    stops = """
        import os, signal, sys
        import limiter_cli.run.supervisor as it

        def prepare(mask):
            go_on = prepared(mask)
            return lambda: (os.kill(os.getpid(), signal.SIGSTOP), go_on())

        prepared, it._prepare = it._prepare, prepare
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        it.main(int(sys.argv[1]), mask)
    """
    ran = tmp_path / "ran"
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(stops), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    ours.settimeout(WAITS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    given = {"command": ["touch", str(ran)], "environment": dict(os.environ), "kill_after": 1}
    with ours, process, ours.makefile("rw") as stream:
        try:
            stream.write(json.dumps({"start": given}) + "\n")
            stream.flush()
            wait_until("it is forked", children.read_text)
            forked = int(children.read_text())
            wait_until("it stands still", lambda: state_of(forked) == "T")

            os.killpg(process.pid, signal.SIGINT)
            os.kill(forked, signal.SIGCONT)

            assert [json.loads(line) for line in stream] == [
                {"started": forked},
                {"ended": -signal.SIGINT},
                {"empty": True},
            ]
            assert process.wait(WAITS) == 0
            assert not ran.exists()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_supervisor_whose_socket_has_a_high_number():
    """`select.select` takes no descriptor above 1023; so many are open where they are inherited."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 1200), before[1]))
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            os.dup2(theirs.fileno(), 1100)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor_script.__file__, "1100"],
            pass_fds=[1100],
            start_new_session=True,
        )
        os.close(1100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    ours.settimeout(WAITS)
    given = {"command": ["sh", "-c", "exit 3"], "environment": dict(os.environ), "kill_after": 1}
    with ours, process, ours.makefile("rw") as stream:
        stream.write(json.dumps({"start": given}) + "\n")
        stream.flush()
        assert [list(json.loads(line)) for line in stream] == [["started"], ["ended"], ["empty"]]
        assert process.wait(WAITS) == 0
