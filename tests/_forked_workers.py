"""Workers of pytest-xdist that are forked from one process, which has collected the tests.

To import what the tests need and to collect them takes six seconds, and each worker would do it. So
pytest's process starts one that does it once, the template, and that forks a worker whenever
pytest-xdist starts one, also in place of one that ended. What pytest-xdist itself starts is
`_worker_start.py`, which hands its standard streams to the fork. If the template could not collect,
that turns into a worker which tries to by itself, and says what is wrong.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from _pytest.config import _prepareconfig

from . import _fork_server, _worker_start
from ._worker_start import WORKER

ROOT = Path(__file__).parents[1]
PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[1])
from tests import _forked_workers
_forked_workers.main()
"""

# -- in pytest's process ---------------------------------------------------------------------------


class Template:
    """A plugin that has a template, and the workers of this run forked from it."""

    def __init__(self, config: pytest.Config) -> None:
        from xdist.plugin import _sys_path

        self._folder = tempfile.TemporaryDirectory(prefix="limiter-workers-")
        self.address = str(Path(self._folder.name) / "socket")
        arguments = [*map(str, config.invocation_params.args)]
        run = {"arguments": arguments, "path": _sys_path, "address": self.address}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(100)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", PROGRAM, str(ROOT)),
                    *(str(listener.fileno()), json.dumps(run)),
                ],
                cwd=config.invocation_params.dir,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )

    def pytest_xdist_getremotemodule(self) -> object:
        """Say what a worker does first."""
        return _worker_start

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """End it, after the workers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()


def fork_workers(config: pytest.Config, specs: list[Any]) -> None:
    """Have the workers that pytest-xdist is about to start forked."""
    template = Template(config)
    config.pluginmanager.register(template)
    start = [sys.executable, "-I", "-S", _worker_start.__file__, template.address]
    for spec in specs:
        spec.python = spec.python or shlex.join(start)


# -- in the template, and in what is forked --------------------------------------------------------


class Collector:
    """Collects the tests, and notes what a worker has to tell about that: a plugin.

    Attributes:
        forked: what collected the tests of this worker, if it was forked.
    """

    forked: ClassVar[Collector | None] = None

    def __init__(self, arguments: list[str]) -> None:
        self.config = _prepareconfig(arguments)
        # Not earlier: pytest is to import it, and to rewrite what it asserts.
        self._remote: Any = importlib.import_module("xdist.remote")
        self._remote.setup_config(self.config, None)
        self.config.workerinput = {}  # type: ignore[attr-defined]
        self.config.workeroutput = {}  # type: ignore[attr-defined]
        self.config.pluginmanager.register(self)
        self._told: list[tuple[str, dict[str, Any]]] = []
        self._capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        self.session = pytest.Session.from_config(self.config)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._told.append(("pytest_collectreport", {"report": report}))

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: Any
    ) -> None:
        told = {"warning_message": warning_message, "when": when}
        told |= {"nodeid": nodeid, "location": location}
        self._told.append(("pytest_warning_recorded", told))

    def collect(self) -> None:
        self.config._do_configure()
        self.config.hook.pytest_sessionstart(session=self.session)
        self.config.hook.pytest_collection(session=self.session)
        self._capture.stop_global_capturing()  # each worker has files of its own for that

    def run(self, channel: Any) -> None:
        """Be a worker of pytest-xdist; what follows is what its own does after it has collected."""
        config, session = self.config, self.session
        config.pluginmanager.unregister(self)
        config.workerinput, _, options, _ = channel.receive()
        self._remote.interactor = worker = self._remote.WorkerInteractor(config, channel)
        os.environ["PYTEST_XDIST_TESTRUNUID"] = worker.testrunuid
        os.environ["PYTEST_XDIST_WORKER"] = worker.workerid
        os.environ["PYTEST_XDIST_WORKER_COUNT"] = str(config.workerinput["workercount"])
        config.option.basetemp = options.get("basetemp")
        config._tmp_path_factory = pytest.TempPathFactory.from_config(config, _ispytest=True)
        self._capture.start_global_capturing()
        self._capture.suspend_global_capture()
        session.exitstatus = pytest.ExitCode.OK
        try:
            worker.pytest_sessionstart(session)
            worker.pytest_collection()
            for name, given in self._told:
                getattr(worker, name)(**given)
            worker.pytest_collection_finish(session)
            config.hook.pytest_runtestloop(session=session)
            if session.testsfailed:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        except (KeyboardInterrupt, pytest.exit.Exception):
            session.exitstatus = pytest.ExitCode.INTERRUPTED
            config.hook.pytest_keyboard_interrupt(excinfo=pytest.ExceptionInfo.from_current())
        except BaseException:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            config.notify_exception(pytest.ExceptionInfo.from_current(), config.option)
        finally:
            os.chdir(session.startpath)
            config.hook.pytest_sessionfinish(session=session, exitstatus=session.exitstatus)
            config._ensure_unconfigure()


def run(channel: Any) -> None:
    """Be a worker of pytest-xdist; called in it."""
    if Collector.forked is not None:
        Collector.forked.run(channel)
        return
    xdist = importlib.util.find_spec("xdist")  # its own way; nothing of it may be imported before
    assert xdist is not None
    assert xdist.origin is not None
    program = Path(xdist.origin).with_name("remote.py").read_text(encoding="utf-8")
    exec(program, {"__name__": "__channelexec__", "channel": channel})


def main() -> None:
    """Be the template, and then the worker that is forked from it."""
    number, given = sys.argv[2:]
    run = json.loads(given)
    sys.path[:] = run["path"]
    # Collecting keeps one core busy. (Not to its standard error: pytest captures that meanwhile.)
    _fork_server.expect = functools.partial(_fork_server.start, stderr=os.dup(2))
    try:
        collector = Collector(run["arguments"])
        collector.collect()
        with socket.socket(fileno=int(number)) as listener:
            connection = serve(listener)
    except (KeyboardInterrupt, pytest.UsageError, pytest.Session.Failed):
        return  # workers say it, and pytest's process
    if connection is not None:
        Collector.forked = collector
        _fork_server.find = functools.partial(find_fork_server, run["address"])
        sys.argv[:] = ["-c"]
        exec(eval(sys.stdin.readline()), {"__name__": "__main__"})
        connection.close()


def serve(listener: socket.socket) -> socket.socket | None:
    """Fork a worker, or find a fork server, for each connection, until stdin ends.

    Returns:
        In a worker: the connection, to be kept as long as it runs. In the template: None.
    """
    before = signal.signal(signal.SIGCHLD, _take_note_of_the_ended)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return None
        connection, _ = listener.accept()
        said, numbers, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if said != WORKER:
            with connection, socket.socket(fileno=numbers[0]) as client:
                _fork_server.serve(tuple(json.loads(said)), client)
            continue
        if not os.fork():
            signal.signal(signal.SIGCHLD, before)
            for place, each in enumerate(numbers):
                os.dup2(each, place)
                os.close(each)
            connection.send(b"!")
            return connection
        for each in (connection.detach(), *numbers):
            os.close(each)


def _take_note_of_the_ended(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def find_fork_server(address: str, imports: tuple[str, ...], client: socket.socket) -> None:
    """Have a fork server of the template serve this worker: all share those."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(imports).encode()], [client.fileno()])
