"""Starts Python processes of the tests by forking one that has imported what they need.

Imports are most of the CPU time of a worker process that does a job or two: half a second of
Docket's worker, and of Celery's. So there is one process for each set of imports, the fork server:
it imports, starts no thread, opens no connection, and forks a process for each start. That one then
runs a script or a module as `python script` and `python -m module` do, with file descriptors, a
working folder and an environment of its own. It can be frozen, killed and waited for as any other.

Workers of pytest-xdist that are forked share the fork servers of the process that they are forked
from (`_forked_workers.py`); any other process of tests starts its own.

What reads its options from the command line or the environment of the interpreter itself (`-X`,
`PYTHONHASHSEED`) needs a process of its own: `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
SIZE = 1 << 20
"""Bytes of a start's arguments and environment, at most."""


class ForkedProcess:
    """A process that a fork server started; of `subprocess.Popen` it has what the tests use."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        imports: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        text: bool = False,
        start_new_session: bool = False,
        strict: bool = False,
    ) -> None:
        """Start it.

        Args:
            command: what follows `python`: `[script, *arguments]` or `["-m", module, *arguments]`.
            imports: modules that it finds imported; all but importing them is still to be done.
            env, cwd, stdin, stdout, stderr, text, start_new_session: as of `subprocess.Popen`.
            strict: warnings are errors from the start of the script on, as by `python -W error`.
        """
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        self.returncode: int | None = None
        ours: list[tuple[str, int]] = []
        theirs: list[int] = []
        passed: list[int] = []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if given == subprocess.PIPE:
                reads, writes = os.pipe()
                end, other = (reads, writes) if name == "stdin" else (writes, reads)
                ours.append((name, other))
                theirs.append(end)
            elif given == subprocess.DEVNULL:
                end = os.open(os.devnull, os.O_RDWR)
                theirs.append(end)
            elif given == subprocess.STDOUT:
                end = passed[1]
            else:
                end = given if isinstance(given, int) else given.fileno()
            passed.append(end)
        start = {
            "command": list(command),
            "env": dict(os.environ if env is None else env),
            "cwd": os.fspath(cwd or Path.cwd()),
            "session": start_new_session,
            "strict": strict,
        }
        self._status, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            server = _connection_to(tuple(imports))
            socket.send_fds(server, [json.dumps(start).encode()], [*passed, status.fileno()])
        finally:
            status.close()
            for number in theirs:
                os.close(number)
        self._status.settimeout(60)
        said = self._status.recv(16)
        assert said, "the fork server has ended"
        self.pid = int(said)
        for name, number in ours:
            mode = ("w" if name == "stdin" else "r") + ("" if text else "b")
            setattr(self, name, os.fdopen(number, mode))

    def poll(self) -> int | None:
        """Return its exit code if it has ended, else None."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit code; that of a signal is negative.

        Raises:
            subprocess.TimeoutExpired: it has not ended in so many seconds.
        """
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                said = self._status.recv(16)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            assert said, "the fork server has ended"
            self.returncode = int(said)
            self._status.close()
        return self.returncode

    def communicate(self, *, timeout: float) -> tuple[Any, Any]:
        """Wait until it has ended, and return all that it wrote to its pipes: stdout, stderr."""
        if self.stdin is not None:
            self.stdin.close()
        read: dict[str, Any] = {}

        def read_all(name: str, pipe: IO[Any]) -> None:
            read[name] = pipe.read()

        readers = [
            threading.Thread(target=read_all, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", self.stdout), ("stderr", self.stderr))
            if pipe is not None
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return read.get("stdout"), read.get("stderr")

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Have it end in good order."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as the system does when memory runs out."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it if it runs, and close its pipes."""
        self.kill()
        self.wait(60)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class _Server:
    """A fork server that this process started."""

    def __init__(self, imports: Sequence[str], stderr: int | None = None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests._fork_server", str(theirs.fileno()), *imports],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self.close)

    def serve(self, client: socket.socket) -> None:
        socket.send_fds(self._control, [b"!"], [client.fileno()])

    def close(self) -> None:
        self._control.close()
        self._process.wait(60)


_servers: dict[tuple[str, ...], _Server] = {}
_connections: dict[tuple[str, ...], socket.socket] = {}


def serve(imports: tuple[str, ...], client: socket.socket) -> None:
    """Have a fork server of this process serve the process at the other end of a socket."""
    if imports not in _servers:
        _servers[imports] = _Server(imports)
    _servers[imports].serve(client)


def start(imports: Sequence[str], stderr: int) -> None:
    """Start a fork server of this process, before it is asked for."""
    _servers[tuple(imports)] = _Server(imports, stderr)


find: Callable[[tuple[str, ...], socket.socket], None] = serve
"""Has a fork server serve the process at the other end of a socket; workers share the servers."""


def _start_none(imports: Sequence[str]) -> None:
    """Start it when it is asked for."""


expect: Callable[[Sequence[str]], None] = _start_none
"""Says that a module of tests will ask for these imports: the server may start at once."""


def _connection_to(imports: tuple[str, ...]) -> socket.socket:
    if imports not in _connections:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SIZE)
        with theirs:
            find(imports, theirs)
        atexit.register(ours.close)
        _connections[imports] = ours
    return _connections[imports]


def _serve(control: socket.socket) -> Callable[[], None]:
    """Fork for each command until there are no more; what is returned is to be run, last of all."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    os.set_blocking(reads, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    clients: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(reads, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if reads in ready:
                with suppress(BlockingIOError):
                    os.read(reads, 4096)
                _report_the_ended(running)
            if control in ready:
                said, numbers, _, _ = socket.recv_fds(control, 1, 1)
                if not said:
                    return lambda: None
                client = socket.socket(fileno=numbers[0])
                clients.add(client)
                selector.register(client, selectors.EVENT_READ)
            for client in clients & ready:
                said, numbers, _, _ = socket.recv_fds(client, SIZE, 4)
                if not said:
                    selector.unregister(client)
                    clients.remove(client)
                    client.close()
                    continue
                status = socket.socket(fileno=numbers.pop())
                pid = os.fork()
                if pid:
                    running[pid] = status
                    for number in numbers:
                        os.close(number)
                    continue
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, before)
                for end in (reads, writes):
                    os.close(end)
                for each in (control, *clients, *running.values()):
                    each.close()
                program = _become(json.loads(said), numbers)
                status.send(
                    str(os.getpid()).encode()
                )  # from now on it can be sent signals, and its group
                status.close()
                return program


def _report_the_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as channel, suppress(BrokenPipeError, ConnectionResetError):
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(start: dict[str, Any], numbers: list[int]) -> Callable[[], None]:
    """Turn this process into the one that was asked for; what is returned runs its program."""
    for place, number in enumerate(numbers):
        os.dup2(number, place)
    for number in set(numbers) - {0, 1, 2}:
        os.close(number)
    if start["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(start["env"])
    os.chdir(start["cwd"])
    if start["strict"]:
        warnings.simplefilter("error")
    command = start["command"]
    if command[0] == "-m":
        sys.path[0] = start["cwd"]
        sys.argv = command[1:]
        return lambda: runpy.run_module(command[1], run_name="__main__", alter_sys=True) and None
    sys.path[0] = str(Path(command[0]).parent)
    sys.argv = command
    return lambda: runpy.run_path(command[0], run_name="__main__") and None


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # To no collector of a forked one, either: each would look at all of it, and write to it, at its
    # end above all; that was more than half of the CPU time of most.
    gc.freeze()
    run = _serve(control)
    del control
    run()


if __name__ == "__main__":
    _main()
