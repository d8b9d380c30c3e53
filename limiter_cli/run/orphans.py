"""What is left of a command whose supervisor was killed: found by a mark in its environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from limiter_cli.run.supervisor import LOOK_EVERY
from limiter_core.system_clock import system_clock as time

__all__ = ("end_orphans",)


async def end_orphans(mark: str, kill_after: float) -> None:
    """End all processes that have a mark, and wait until none is left.

    Nothing is found but on Linux, and nothing that has cleared its environment.

    Args:
        mark: a variable of the environment with its value, `NAME=VALUE`, which no other has.
        kill_after: seconds from SIGTERM to SIGKILL.
    """
    kill_at = time.monotonic() + kill_after
    terminated: set[int] = set()
    while found := set(_marked(mark)):
        kill = time.monotonic() >= kill_at
        for pid in found if kill else found - terminated:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # one that is stopped would not see it
        terminated |= found
        await asyncio.sleep(LOOK_EVERY)


def _marked(mark: str) -> Iterator[int]:
    variable = os.fsencode(mark)
    for process in Path("/proc").glob("[0-9]*"):
        # It may have ended meanwhile, or be another user's.
        with contextlib.suppress(OSError):
            if any(_has(thread, variable) for thread in (process / "task").iterdir()):
                yield int(process.name)


def _has(thread: Path, variable: bytes) -> bool:
    """Whether a thread has this in its environment; one that has ended has none.

    (The first one of a process may have, and others run.)
    """
    with contextlib.suppress(OSError):
        return variable in (thread / "environ").read_bytes().split(b"\0")
    return False
