"""The supervisor of `limiter run`: it starts the command and finds all its descendants.

It is a process of its own, for three reasons. Its children are the command and nothing else, also
where `limiter run` is PID 1 or inherited children from a shell that replaced itself by it. It stays
when `limiter run` is killed: the socket between them closes then, and it ends what was started. And
it can be a *subreaper* on Linux: a process whose parent has ended becomes its child, so a process
that detaches itself is still found.

It runs as a script, with the standard library alone, so that it starts in milliseconds:
`python -I -S supervisor.py FD [BLOCKED]...`. Both sides send JSON objects, one a line.

    to the supervisor                            from the supervisor
    {"start": {"command": [...],                 {"started": PID}
               "environment": {...},             {"failed": ERRNO, "why": TEXT}
               "kill_after": SECONDS}}           {"ended": EXITCODE}   the command itself
    {"signal": NUMBER, "by_terminal": BOOL}      {"empty": true}       nothing is left; the last one
    {"end": SECONDS}                             TERM now, KILL after so many seconds
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ("LOOK_EVERY", "SIGNALS", "TO_ALL")

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
"""Signals that `limiter run` passes on, by name, as not every system has all."""

TO_ALL = ("SIGINT", "SIGTERM", "SIGQUIT")
"""Of these, those that ask for an end. They are sent to every descendant, as a terminal sends
Ctrl-C to all. The others are sent to the command alone."""

_LINUX = sys.platform == "linux"
LOOK_EVERY = 0.05
"""Seconds between two looks for new processes, while they are being ended."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    """Starts one command, passes signals on, and ends all its descendants.

    Args:
        connection: to `limiter run`.
        mask: the signals that were blocked before the supervisor blocked its own.
        subreaper: whether orphans become children of this process (Linux). Without it, the
            command's process group stands for all that was started.
    """

    def __init__(
        self, connection: socket.socket, mask: set[signal.Signals], *, subreaper: bool
    ) -> None:
        self._connection = connection
        self._mask = mask
        self._subreaper = subreaper
        self._buffer = b""
        self._command: int | None = None
        self._group: int | None = None
        self._status: int | None = None
        self._kill_after = 10.0
        self._kill_at: float | None = None
        self._terminated: set[int] = set()
        self._missed: set[int] = set()
        self._asked_to_end = False
        self._abandoned = False
        self._is_over = False

    def run(self) -> None:
        """Serve until the command and its descendants have ended, or could not be started."""
        child_changed, wake_up = os.pipe()
        os.set_blocking(wake_up, False)
        os.set_blocking(child_changed, False)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note_nothing)
        connection = self._connection.fileno()
        watched = select.poll()  # `select.select` takes no descriptor above 1023
        watched.register(child_changed, select.POLLIN)
        watched.register(connection, select.POLLIN)
        while True:
            patience = self._patience()
            events = watched.poll(None if patience is None else patience * 1000)
            ready = {descriptor for descriptor, _ in events}
            if child_changed in ready:
                os.read(child_changed, 4096)
            if connection in ready:
                self._receive()
                if self._abandoned:
                    watched.unregister(connection)
            if self._command is not None:
                self._reap()
                self._is_over = self._is_empty()
                self._go_on_ending()
            elif self._abandoned:
                return
            if self._is_over:
                self._send(empty=True)
                return

    # -- messages ---------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data = self._connection.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:  # `limiter run` has ended: the slot is not held any more
            self._abandoned = True
            self._end(self._kill_after)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self._start(**message["start"])
        elif "end" in message:
            self._end(message["end"])
        elif "signal" in message:
            self._pass_on(signal.Signals(message["signal"]), by_terminal=message["by_terminal"])

    def _send(self, **message: object) -> None:
        if not self._abandoned:
            with contextlib.suppress(OSError):
                self._connection.sendall(json.dumps(message).encode() + b"\n")

    # -- the command ------------------------------------------------------------------------------

    def _start(self, command: list[str], environment: dict[str, str], kill_after: float) -> None:
        self._kill_after = kill_after
        own_group = not self._subreaper and not _in_foreground()
        os.register_at_fork(before=self._note_what_it_misses)
        try:
            process = subprocess.Popen(  # noqa: S603  (running what the user says is the point)
                command,
                env=environment,
                close_fds=False,  # ours close by themselves; the rest is for the command
                preexec_fn=_prepare(self._mask),  # noqa: PLW1509  (this process has one thread)
                process_group=0 if own_group else None,
            )
        except OSError as error:
            self._send(failed=error.errno, why=error.strerror)
            self._is_over = True
            return
        process.returncode = 0  # it is waited for here, beside all others
        self._command = process.pid
        self._group = process.pid if own_group else None
        self._send(started=process.pid)

    def _note_what_it_misses(self) -> None:
        # They are blocked here, so what the terminal has sent until the fork is pending. `limiter
        # run` may see it only when the command is there, or see a later one before it knows that.
        self._missed = set(signal.sigpending())

    def _pass_on(self, number: signal.Signals, *, by_terminal: bool) -> None:
        if self._command is None:
            return
        if number.name not in TO_ALL:
            if self._status is None:
                _kill(self._command, number)
            return
        self._asked_to_end = True
        # The terminal sends it to all that is in our process group by then.
        self._kill_all(number, elsewhere=by_terminal and number not in self._missed)
        self._missed.discard(number)
        if self._status is not None and self._kill_at is None:
            self._end(self._kill_after)  # what it left behind

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._command:
                    self._status = os.waitstatus_to_exitcode(status)
                    self._send(ended=self._status)
                    if self._asked_to_end and self._kill_at is None:
                        self._end(self._kill_after)  # what it left behind

    def _is_empty(self) -> bool:
        if self._subreaper:
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            return False
        if self._status is None:
            return False
        if self._group is None:
            return True
        try:
            os.killpg(self._group, 0)
        except (ProcessLookupError, PermissionError):  # macOS: the latter where only zombies are
            return True
        return False

    # -- the end ----------------------------------------------------------------------------------

    def _end(self, kill_after: float) -> None:
        if self._command is None:
            return
        kill_at = time.monotonic() + kill_after
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._go_on_ending()

    def _go_on_ending(self) -> None:
        if self._kill_at is None or self._is_over:
            return
        if time.monotonic() >= self._kill_at:
            self._kill_all(signal.SIGKILL)
            return
        # Processes may be started meanwhile; each is signalled once.
        self._kill_all(signal.SIGTERM, but=self._terminated)

    def _kill_all(
        self, number: signal.Signals, but: set[int] | None = None, *, elsewhere: bool = False
    ) -> None:
        """Send a signal to all that was started, or only to what has another process group."""
        assert self._command is not None
        if self._subreaper:
            targets = list(_descendants(os.getpid()))
            if elsewhere:
                targets = [pid for pid in targets if _has_another_group(pid)]
        elif elsewhere and self._group is None:
            targets = []
        else:
            targets = [self._command] if self._group is None else [-self._group]
        for pid in targets:
            if but is None or pid not in but:
                _kill(pid, number)
            if but is not None:
                but.add(pid)

    def _patience(self) -> float | None:
        if self._kill_at is not None:
            return LOOK_EVERY
        # Without a subreaper there is no signal when the last of a group ends.
        return 1.0 if self._status is not None and not self._subreaper else None


def _note_nothing(number: int, frame: object) -> None:
    """Do nothing on SIGCHLD: its arrival wakes the loop, which then looks for ended processes."""


def _kill(pid: int, number: signal.Signals) -> None:
    # It may have ended meanwhile, or have become another user's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        if number is signal.SIGTERM:  # one that is stopped would not see it
            os.kill(pid, signal.SIGCONT)


def _has_another_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) != os.getpgrp()
    except (ProcessLookupError, PermissionError):
        return False  # it has ended


def _descendants(root: int) -> Iterator[int]:
    """Yield the descendants of a process (Linux), parents before their children.

    In this order: a shell that sees its child end first would go on with its next command.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # The name in the second field may contain anything; the parent is the second behind it.
            # (A zombie may have threads that run: that its first one has ended.)
            with contextlib.suppress(OSError, IndexError):
                parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    generation = children.get(root, [])
    while generation:
        yield from generation
        generation = [child for pid in generation for child in children.get(pid, [])]


def _prctl(option: int, argument: int) -> bool:
    return bool(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0) == 0)


def _prepare(mask: set[signal.Signals]) -> Callable[[], None]:
    """Return what the new process does before it executes the command."""
    prctl = ctypes.CDLL(None).prctl if _LINUX else None
    supervisor = os.getpid()

    def prepare() -> None:  # pragma: no cover  (runs between fork and exec)
        if prctl is not None:
            # Nobody would know what it starts if this process were killed.
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(128 + signal.SIGTERM)
        # One that came since the fork is for the command, and nothing of Python's is to handle it.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _in_foreground() -> bool:
    """Whether this process is in the foreground of a terminal; a new group would not be."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def main(fd: int, mask: set[signal.Signals]) -> None:
    """Serve the process at the other end of a socket.

    That process has blocked `SIGNALS` here: they are meant for it, and it passes them on.

    Args:
        fd: the socket.
        mask: the signals that were blocked before; so they are for the command.
    """
    os.set_inheritable(fd, False)  # the command gets what was open before, and not this
    subreaper = _LINUX and _prctl(_PR_SET_CHILD_SUBREAPER, 1) and Path("/proc/self/stat").exists()
    with socket.socket(fileno=fd) as connection:
        Supervisor(connection, mask, subreaper=subreaper).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), {signal.Signals(int(number)) for number in sys.argv[2:]})
