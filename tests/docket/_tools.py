"""What the tests of the Docket adapter share: a quick worker, and looks behind the scenes."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

from docket import Docket, Worker

from limiter_core import Limiter
from limiter_docket._gates import WorkerGates, open_gates
from tests.redis._processes import most_at_once
from tests.redis._servers import Server
from tests.redis._tools import until, until_true

__all__ = (
    "TaskRecord",
    "finish",
    "gates_of",
    "limiter_of",
    "most_at_once",
    "quick",
    "slots_in_use",
    "until",
    "until_true",
    "working",
)


_records: weakref.WeakSet[TaskRecord] = weakref.WeakSet()


class TaskRecord:
    """What the bodies of a test's tasks did."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.bodies: list[tuple[float, float]] = []
        self._events: list[asyncio.Event] = []
        self.go_on = self.event()
        """What bodies wait for that are to be held."""
        _records.add(self)

    def event(self) -> asyncio.Event:
        """Return an event that a task may wait for: it is set when the test fails."""
        self._events.append(asyncio.Event())
        return self._events[-1]

    def release_all(self) -> None:
        """End all bodies that are held."""
        for event in self._events:
            event.set()

    async def body(self, what: Any, seconds: float = 0.01) -> None:
        """Take a while."""
        self.began.append(what)
        start = time.monotonic()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.bodies.append((start, time.monotonic()))

    async def hold(self, what: Any) -> None:
        """Run until the test ends it."""
        self.began.append(what)
        start = time.monotonic()
        try:
            await self.go_on.wait()
        finally:
            self.bodies.append((start, time.monotonic()))


class QuickWorker(Worker):
    """A worker that ends though the test failed while bodies were held."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End when the tasks have ended."""
        if error is not None:
            release_all()
        await super().__aexit__(kind, error, traceback)


def release_all() -> None:
    """Have all held bodies end: a worker waits for them."""
    for record in list(_records):
        record.release_all()


def quick(docket: Docket, **options: Any) -> Worker:
    """Return a worker that looks for work without delay."""
    given: dict[str, Any] = {
        "minimum_check_interval": timedelta(milliseconds=10),
        "scheduling_resolution": timedelta(milliseconds=20),
        **options,
    }
    return QuickWorker(docket, **given)


async def finish(docket: Docket, **options: Any) -> None:
    """Have a worker do all that there is to do."""
    async with quick(docket, **options) as worker:
        await worker.run_until_finished()


@asynccontextmanager
async def working(docket: Docket, **options: Any) -> AsyncIterator[Worker]:
    """Have a worker at work for a while; it ends as with SIGTERM."""
    async with quick(docket, **options) as worker:
        running = asyncio.ensure_future(worker.run_forever())
        try:
            yield worker
        except BaseException:
            release_all()
            raise
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def limiter_of(docket: Docket) -> Limiter:
    """Return a limiter on the store of a docket's limits, while a worker is at work."""
    gate = await gates_of(docket).gate(None)
    return Limiter(gate.store)


def gates_of(docket: Docket) -> WorkerGates:
    """Return the gates of a worker that is at work."""
    return next(gates for gates in open_gates.values() if gates.docket is docket)


def parked(docket: Docket, number: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that so many tasks are parked."""

    async def are() -> bool:
        async with docket.redis() as redis:
            return await redis.zcard(docket.queue_key) == number

    return are


def slots_in_use(server: Server) -> list[str]:
    """Return the limiter's keys that have holders or waiters."""
    return [
        name
        for name in server.admin.scan_iter(count=1000)
        if "limits:" in name and ":state" in name
    ]
