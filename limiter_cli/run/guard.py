"""A command under a limit: the slot is acquired, held while the command runs, and released."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import anyio

from limiter_cli.exits import LOST, SIGNALLED, say
from limiter_cli.run.child import LEASE_ID, Child
from limiter_cli.run.supervisor import SIGNALS
from limiter_core import ConcurrencyLimit, Lease, LeaseLost, Limiter, StoreError

__all__ = ("run_under",)

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Signals that end the waiting. (By name, as not every system has all.)"""


async def run_under(
    limiter: Limiter, limit: ConcurrencyLimit, command: Sequence[str], *, kill_after: float
) -> int:
    """Run a command while holding a slot.

    Returns:
        The command's status as a shell has it: 128 + n where signal n ended it, or ended the
        waiting before it began. `LOST` if the lease was lost and the command ended for it.

    Raises:
        LimiterError: there was no slot; the command did not start.
        CommandError: the command could not be started; no slot is held.
    """
    guard = _Guard(limiter, limit, command, kill_after)
    with _signals(guard.on_signal):
        return await guard.run()


class _Guard:
    def __init__(
        self,
        limiter: Limiter,
        limit: ConcurrencyLimit,
        command: Sequence[str],
        kill_after: float,
    ) -> None:
        self._limiter = limiter
        self._limit = limit
        self._command = command
        self._kill_after = kill_after
        self._waiting = anyio.CancelScope()
        self._child = Child(kill_after)
        self._started = False
        self._ended_by = 0

    def on_signal(self, number: int) -> None:
        """Pass a signal on to the command; while it waits for a slot, end the waiting."""
        if self._started:
            self._child.send(number, by_terminal=_came_by_terminal(number))
        elif signal.Signals(number).name in ENDING:
            self._ended_by = number
            self._waiting.cancel()

    async def run(self) -> int:
        async with self._child:
            return await self._run()

    async def _run(self) -> int:
        with self._waiting:
            if self._limit.timeout is None:
                # Waiting for a slot may take for ever, but not waiting for a store.
                await self._limiter.inspect(self._limit)
            try:
                async with self._limiter.hold(self._limit) as lease:
                    if not self._ended_by:
                        return await self._run_command(lease)
            except LeaseLost:
                if not self._started:
                    raise
                return LOST
        # The ticket is withdrawn already, but a cancelled task does not wait for the reply. Behind
        # it, the reply to another question shows that it arrived.
        with contextlib.suppress(StoreError):
            await self._limiter.inspect(self._limit)
        return SIGNALLED + self._ended_by

    async def _run_command(self, lease: Lease) -> int:
        environment = {
            **os.environ,
            "LIMITER_KEY": lease.keys[0],
            LEASE_ID: lease.id,
            "LIMITER_FENCING_TOKEN": str(lease.fencing_token),
        }
        self._started = True
        try:
            await self._child.start(self._command, environment)
            return await self._child.exited()
        except asyncio.CancelledError:  # by the hold, whose lease is lost
            if self._child.has_exited:
                return self._child.status  # it was faster
            self._child.begin_to_end(self._kill_after)
            say(f"limiter: {_why(lease)}; ending the command")  # this may block: a pipe may be full
            with anyio.CancelScope(shield=True):
                await self._child.ended(self._kill_after)
            raise


def _why(lease: Lease) -> str:
    try:
        lease.check()
    except LeaseLost as error:
        return str(error)
    return "interrupted"


def _came_by_terminal(number: int) -> bool:
    """Whether a signal most likely came from the terminal.

    Then the command got it, too, if it was there: a terminal sends what is typed, such as Ctrl-C,
    to all processes of its foreground group. Once more would be too much: many programs take a
    second Ctrl-C for "drop everything".
    """
    if number not in (signal.SIGINT, getattr(signal, "SIGQUIT", None)):
        return False
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def _signals(on_signal: Callable[[int], None]) -> Generator[None]:
    """Handle signals in the event loop, except those that the parent process ignores.

    (`nohup` does so, and a shell for what it runs in the background. The command inherits it.)
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, on_signal, number)
            received.append(number)
    try:
        yield
    finally:
        for number in received:
            loop.remove_signal_handler(number)
