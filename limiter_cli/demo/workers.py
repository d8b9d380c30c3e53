"""A replay by several processes: starts them, receives their reports, and ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import anyio

from limiter_cli.demo.plan import Planned
from limiter_cli.demo.record import Record
from limiter_cli.demo.replay import Watch, perform, run_plainly
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_cli.demo.report_merger import ReportMerger
from limiter_cli.demo.worker import Job
from limiter_core import KeySnapshot, Limiter, LimiterError, StoreError
from limiter_core.system_clock import system_clock as time

__all__ = ("WorkerError", "Workers", "run_workers")

_HEAD_START = 0.3
"""Seconds that the processes have for connecting, before the clock of the log starts."""

_GRACE = 3.0
"""Seconds that a process has for giving back its slots, before it is killed."""


class WorkerError(LimiterError):
    """A process failed, or ended before its calls did."""


class Workers:
    """One run of a plan, by several processes.

    Args:
        calls: the plan.
        limiter: for looking at the store.
        jobs: one for each process.
    """

    def __init__(self, calls: Sequence[Planned], limiter: Limiter, jobs: Sequence[Job]) -> None:
        self.total = len(calls)
        self._merger = ReportMerger(calls, len(jobs))
        self.record = self._merger.record
        self._calls = calls
        self._limiter = limiter
        self._jobs = jobs
        self._scope = ReplayScope(jobs[0].scope)
        self._processes: list[Process] = []
        self._ready = 0
        self._done: set[int] = set()
        self._start: float | None = None

    def now(self) -> float:
        """Return the seconds of the log that have passed."""
        start = self._start
        return 0.0 if start is None else max(0.0, time.monotonic() - start) * self._jobs[0].speed

    async def inspect(self, key: str) -> KeySnapshot:
        """Return the store's state of a key."""
        return await self._limiter.inspect(self._scope.key(key))

    async def run(self) -> None:
        """Have every call made at its time, and return when the last has left.

        Raises:
            WorkerError: in an exception group: a process failed, or died. All others ended, too.
        """
        try:
            for job in self._jobs:
                self._processes.append(await _started(job))
            async with anyio.create_task_group() as listeners:
                for job in self._jobs:
                    listeners.start_soon(self._listen, job.process)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*map(_ended, self._processes))
                if len(self._done) < len(self._jobs):
                    await self._sweep_up()

    async def _listen(self, number: int) -> None:
        process = self._processes[number]
        assert process.stdout is not None
        async for line in process.stdout:
            if line.endswith(b"\n"):  # else it died in the middle
                self._hear(number, json.loads(line))
        status = await process.wait()
        if number not in self._done:
            raise WorkerError(
                f"process {number + 1} of {len(self._jobs)} (pid {process.pid}) "
                + (f"died of signal {-status}" if status < 0 else f"ended with status {status}")
                + ", before all its calls had left"
            )

    def _hear(self, number: int, report: Sequence[Any]) -> None:
        if report[0] == "ready":
            self._ready += 1
            if self._ready == len(self._jobs):
                self._begin()
        elif report[0] == "failed":
            raise WorkerError(f"process {number + 1} of {len(self._jobs)}: {report[1]}")
        elif report[0] == "done":
            self._done.add(number)
            self._merger.finished(number)
        else:
            self._merger.receive(number, report)

    def _begin(self) -> None:
        self._start = time.monotonic() + _HEAD_START
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{self._start!r}\n".encode())

    async def _sweep_up(self) -> None:
        """Free the slots of processes that could not do so themselves."""
        keys = {claim.key for call in self._calls for claim in call.claims}
        left = True
        with contextlib.suppress(StoreError):
            while left:  # a slot taken from one passes to the next, which died as well
                left = False
                for key in keys:
                    for holder in (await self.inspect(key)).holders:
                        left = await self._limiter.evict(holder.id) or left


def run_workers(
    calls: Sequence[Planned],
    limits: str,
    *,
    url: str,
    processes: int,
    speed: float = 1.0,
    watch: Watch | None = None,
) -> Record:
    """Replay a plan from beginning to end, in several processes that share a store.

    Args:
        calls: in the order of their times.
        limits: the text of the limits file: each process reads it for itself.
        url: the store.
        processes: how many; they take the calls in turn.
        speed: seconds of the log in a second of the clock.
        watch: what runs beside it.

    Raises:
        ConfigurationError: the URL names no store, or a scope is too long.
        ImportError: the store's extra is not installed.
        LimiterError: the store failed during the replay, or a process did (`WorkerError`).
    """
    scope = ReplayScope()
    scope.plan(calls)
    numbered = [(call.line, call.call.model_dump()) for call in calls]
    jobs = [
        Job(url, scope.name, limits, numbered, speed, process, processes)
        for process in range(processes)
    ]

    async def run() -> Record:
        async with Limiter(url) as limiter:
            workers = Workers(calls, limiter, jobs)
            await workers.inspect("hello")  # a store that is away is better found out now
            return await perform(workers, watch)

    return run_plainly(run)


async def _started(job: Job) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "limiter_cli.demo.worker", stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    text = json.dumps(asdict(job)).encode()
    process.stdin.write(b"%d\n" % len(text) + text)
    return process


async def _ended(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
