"""One of the processes of a replay: makes its share of the calls, and reports on stdout.

It reads its job from stdin: the job's length on a line, the job as JSON, and, once it has reported
that it is ready, a line with the moment to begin. When stdin ends before it is done, its parent is
gone: it cancels its calls, releases their slots, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import anyio

from limiter_cli.demo.calls import Call
from limiter_cli.demo.limits import hurried, parse_limits
from limiter_cli.demo.plan import Planned, plan
from limiter_cli.demo.record import Outcome, Record, Turn
from limiter_cli.demo.replay import Replay, run_plainly
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_cli.output import print_json
from limiter_core import Limiter, LimiterError

__all__ = ("Job", "main")

_HEARTBEAT = 0.03
"""Seconds between two reports at the most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """All that a process has to know.

    Attributes:
        url: the store.
        scope: the name of the scope.
        limits: the text of the limits file.
        calls: all calls, as line numbers and values; in the order of their times.
        speed: seconds of the log in a second of the clock.
        process: the number of this process, from 0: its calls are each `processes`-th.
        processes: how many there are.
    """

    url: str
    scope: str
    limits: str
    calls: list[tuple[int, dict[str, Any]]]
    speed: float
    process: int
    processes: int

    def plan(self) -> list[Planned]:
        """Return this process's share of the calls."""
        limits = {
            function: tuple(hurried(limit, self.speed) for limit in its_limits)
            for function, its_limits in parse_limits(self.limits, Path("limits")).items()
        }
        numbered = [(line, Call.model_validate(call)) for line, call in self.calls]
        share = plan(numbered, limits, Path("calls"))[self.process :: self.processes]
        return ReplayScope(self.scope).plan(share)


class _Reporter(Record):
    """A record that another process keeps."""

    def arrived(self, planned: Planned, at: float) -> Turn:
        _report("arrived", at, planned.place)
        return Turn(planned, at)

    def began(self, turn: Turn, at: float) -> None:
        _report("began", at, turn.planned.place)

    def ended(self, turn: Turn, at: float) -> None:
        _report("ended", at, turn.planned.place)

    def left(self, turn: Turn, at: float, outcome: Outcome, key: str | None = None) -> None:
        _report("left", at, turn.planned.place, outcome.value, key)


def main() -> None:
    """Do the job that stdin describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that started us
    with open(0, "rb", buffering=0, closefd=False) as inbox:
        job = _job(inbox)
        calls = job.plan()
        _report("ready")
        start = float(inbox.readline() or "nan")
        if not math.isnan(start):
            _perform(job, calls, start, inbox)


def _perform(job: Job, calls: list[Planned], start: float, inbox: io.FileIO) -> None:
    async def run() -> None:
        async with Limiter(job.url) as limiter:
            replay = Replay(
                calls,
                limiter,
                record=_Reporter(),
                scope=ReplayScope(job.scope),
                speed=job.speed,
                start=start,
            )
            await replay.inspect("hello")  # connects
            async with anyio.create_task_group() as beside:
                beside.start_soon(_beat, replay)
                _when_left_alone(inbox, beside.cancel_scope)
                await replay.run()
                beside.cancel_scope.cancel()

    try:
        run_plainly(run)
    except (LimiterError, ImportError) as error:
        _report("failed", str(error))
        sys.exit(1)
    _report("done")


async def _beat(replay: Replay) -> None:
    while True:
        _report("now", replay.now())
        await anyio.sleep(_HEARTBEAT)


def _when_left_alone(inbox: io.FileIO, scope: anyio.CancelScope) -> None:
    """Cancel a scope when stdin ends."""
    loop = asyncio.get_running_loop()

    def listen() -> None:
        while inbox.read(1):
            pass
        with contextlib.suppress(RuntimeError):  # the loop ended by itself
            loop.call_soon_threadsafe(scope.cancel)

    threading.Thread(target=listen, name="limiter-demo-inbox", daemon=True).start()


def _job(inbox: io.FileIO) -> Job:
    left = int(inbox.readline())
    parts: list[bytes] = []
    while left:
        part = inbox.read(left)
        if not part:
            sys.exit("the job ended in the middle")
        parts.append(part)
        left -= len(part)
    return Job(**json.loads(b"".join(parts)))


def _report(*what: Any) -> None:
    try:
        print_json(what, indent=None)
    except BrokenPipeError:
        sys.exit(1)  # the output is not read


if __name__ == "__main__":
    main()
