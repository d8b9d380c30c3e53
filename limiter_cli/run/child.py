"""The process of the command: started, signalled, waited for, ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from limiter_cli.exits import NO_COMMAND, NOT_RUNNABLE, SIGNALLED

__all__ = ("Child", "CommandError", "check_command")


class CommandError(Exception):
    """The command cannot be started.

    Attributes:
        status: how a shell would exit.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def check_command(name: str) -> None:
    """Find out that a command cannot be started before anybody waits for a slot for it.

    Raises:
        CommandError: it is not there, or not executable.
    """
    if shutil.which(name) is None:
        raise _command_error(name, there=os.sep in name and Path(name).exists())


class Child:
    """A running command, in this process's group, with its terminal and open files.

    On Linux it gets SIGTERM when this process dies, even by `kill -9`: nobody would keep its slot.

    Raises:
        CommandError: it could not be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        try:
            self._process = subprocess.Popen(  # noqa: S603  (running what the user says is the point)
                command,
                env=environment,
                close_fds=False,  # ours close by themselves; the rest is for the command
                preexec_fn=_end_with_parent(),  # noqa: PLW1509  (it only calls the system)
            )
        except OSError as error:
            there = not isinstance(error, FileNotFoundError)
            raise _command_error(command[0], there=there, why=error.strerror) from error
        # A thread of our own: every other way to hear of an exit may lose the status to `poll`.
        threading.Thread(target=self._wait, name="limiter-run-wait", daemon=True).start()

    @property
    def status(self) -> int | None:
        """How a shell would exit after it; None while it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else SIGNALLED - code

    async def exited(self) -> int:
        """Wait for the end, and return the status."""
        await self._exited.wait()
        return self._process.returncode if self.status is None else self.status

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    async def end(self, kill_after: float) -> None:
        """Have it end: SIGTERM, and SIGKILL for one that still runs so many seconds later."""
        self._process.terminate()
        try:
            await asyncio.wait_for(self._exited.wait(), kill_after)
        except TimeoutError:
            self._process.kill()
            await self._exited.wait()

    def _wait(self) -> None:
        self._process.wait()
        self._loop.call_soon_threadsafe(self._exited.set)


def _command_error(name: str, *, there: bool, why: str | None = None) -> CommandError:
    if there:
        return CommandError(f"{name}: {why or 'Permission denied'}", NOT_RUNNABLE)
    return CommandError(f"{name}: command not found", NO_COMMAND)


def _end_with_parent() -> Callable[[], None] | None:
    """Return what has Linux send the child SIGTERM when its parent dies (prctl(2))."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:  # pragma: no cover  (runs between fork and exec)
        prctl(1, int(signal.SIGTERM), 0, 0, 0)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before this
            os._exit(SIGNALLED + signal.SIGTERM)

    return arrange
