"""The command of `limiter run`: a supervisor starts, signals and ends it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from errno import ENOENT
from pathlib import Path
from typing import Any, Self

from limiter_cli.exits import NO_COMMAND, NOT_RUNNABLE, SIGNALLED, say
from limiter_cli.run.orphans import end_orphans
from limiter_cli.run.supervisor import SIGNALS

__all__ = ("LEASE_ID", "Child", "CommandError", "check_command")

LEASE_ID = "LIMITER_LEASE_ID"
"""The variable in the environment of the command that has the id of its lease."""

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class CommandError(Exception):
    """The command cannot be started.

    Attributes:
        status: how a shell would exit.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def check_command(name: str) -> None:
    """Check that a command can be started, before the wait for its slot begins.

    Raises:
        CommandError: it is not there, or not executable.
    """
    if shutil.which(name) is None:
        raise _command_error(name, there=os.sep in name and Path(name).exists())


class Child:
    """A command and all its descendants, under a supervisor of their own.

    An async context manager: the supervisor starts at its beginning, so that it is there when there
    is a slot. What still runs when it ends is ended by the supervisor.
    If that is killed, what it has started is ended here, as far as it is found.

    The command runs with this process's terminal and open files, and on Linux in its group.

    Args:
        kill_after: seconds from SIGTERM to SIGKILL, where the supervisor ends something by itself.
    """

    def __init__(self, kill_after: float) -> None:
        self._kill_after = kill_after
        self._messages = _Messages()
        self._mark = ""  # in the environment of all that was started
        self._supervisor: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            with _blocked_signals() as mask:
                self._supervisor = subprocess.Popen(  # noqa: ASYNC220, S603  (as fast as can be)
                    [
                        *(sys.executable, "-I", "-S", str(_SUPERVISOR), str(theirs.fileno())),
                        *(str(int(number)) for number in mask),
                    ],
                    close_fds=False,  # what is open here may be meant for the command
                )
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._messages, sock=ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._supervisor is not None
        self._messages.close()
        self._wake()
        # It ends when the command has, at once where there was none.
        await asyncio.get_running_loop().run_in_executor(None, self._supervisor.wait)

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command.

        Raises:
            CommandError: it could not be started.
        """
        self._mark = f"{LEASE_ID}={environment[LEASE_ID]}"
        self._messages.send(
            start={
                "command": list(command),
                "environment": dict(environment),
                "kill_after": self._kill_after,
            }
        )
        await self._messages.started.wait()
        if self._messages.failure is not None:
            number, why = self._messages.failure
            raise _command_error(command[0], there=number != ENOENT, why=why)

    async def exited(self) -> int:
        """Wait until the command and its descendants have ended; return the command's status.

        Returns:
            The status as a shell has it: 128 + n where signal n ended the command.
        """
        await self._messages.empty.wait()
        await self._end_orphans(self._kill_after)
        return self.status

    @property
    def has_exited(self) -> bool:
        """Whether the command and its descendants have ended."""
        return self._messages.empty.is_set() and not self._messages.cut_off

    @property
    def status(self) -> int:
        """The exit status of a shell after the command, once it has ended."""
        code = self._messages.exit_code
        return code if code >= 0 else SIGNALLED - code

    def send(self, number: int, *, by_terminal: bool) -> None:
        """Send a signal; one that asks for an end goes to all descendants, too.

        Args:
            number: the signal.
            by_terminal: whether the command got it from the terminal, if it was there by then.
        """
        self._messages.send(signal=number, by_terminal=by_terminal)
        self._wake()

    def begin_to_end(self, kill_after: float) -> None:
        """Have the command and its descendants end: SIGTERM, and SIGKILL so many seconds later."""
        self._messages.send(end=kill_after)
        self._wake()

    def _wake(self) -> None:
        """Have the supervisor continue: a signal may have stopped it, and it is to act."""
        assert self._supervisor is not None
        self._supervisor.send_signal(signal.SIGCONT)

    async def ended(self, kill_after: float) -> None:
        """Wait until they have ended."""
        await self._messages.empty.wait()
        await self._end_orphans(kill_after)

    async def _end_orphans(self, kill_after: float) -> None:
        if self._messages.cut_off:
            await end_orphans(self._mark, kill_after)
            # Last: it may block, as a pipe may be full.
            say("limiter: what watches over the command was killed, so the command was ended")


class _Messages(asyncio.Protocol):
    """What the supervisor has reported; see its module for the messages."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        """The command runs, or could not be started."""
        self.failure: tuple[int, str] | None = None
        self.exit_code = -signal.SIGKILL
        """The command's exit code, negative for a signal; KILL where the supervisor was killed."""
        self.empty = asyncio.Event()
        """The command and its descendants have ended, or the supervisor was killed."""
        self.cut_off = False
        """The supervisor was killed while the command, or a descendant of it, may have run."""
        self._buffer = b""
        self._runs = False
        self._transport: asyncio.Transport | None = None

    def send(self, **message: object) -> None:
        assert self._transport is not None
        self._runs = self._runs or "start" in message
        self._transport.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.cut_off = self._runs
        self.started.set()
        self.empty.set()

    def _note(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self._runs = False
            self.failure = message["failed"], message["why"]
            self.started.set()
        elif "started" in message:
            self.started.set()
        elif "ended" in message:
            self.exit_code = message["ended"]
        elif "empty" in message:
            self._runs = False
            self.empty.set()


@contextmanager
def _blocked_signals() -> Generator[set[signal.Signals]]:
    """Block the signals that are passed on, for a process that starts; yields the mask before."""
    ours = [getattr(signal, name) for name in SIGNALS]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _command_error(name: str, *, there: bool, why: str | None = None) -> CommandError:
    if there:
        return CommandError(f"{name}: {why or 'Permission denied'}", NOT_RUNNABLE)
    return CommandError(f"{name}: command not found", NO_COMMAND)
