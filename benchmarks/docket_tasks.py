"""What the Docket benchmarks share: the two limits, tasks under them, workers, and what was done.

Both limits get the same: a docket of their own on one server, tasks that differ in the class of
their limit only, a worker with the same settings. What a round wrote is deleted before the next.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import docket
from docket import Docket, Worker

import limiter_docket
from redis_server import Server

OURS = "ours"
THEIRS = "Docket's own"
KINDS: dict[str, Any] = {
    THEIRS: docket.ConcurrencyLimit,
    OURS: limiter_docket.ConcurrencyLimit,
}

POLL = timedelta(milliseconds=10)
"""How long a worker reads before it looks after what ended (`minimum_check_interval`)."""
SCHEDULE = timedelta(milliseconds=20)
"""How often a worker looks for tasks that are due (`scheduling_resolution`)."""
PATIENCE = 180.0
"""Seconds after which a round is given up."""

Do = Callable[[int, str], Awaitable[None]]
"""A body: of the task of this number, under this key."""

_dockets = itertools.count()

# It says at INFO when a task begins and ends, which is not what is measured.
logging.getLogger("docket").setLevel(logging.WARNING)


class NotDoneError(Exception):
    """A round did not do what it was to do: its times mean nothing."""


class Body(NamedTuple):
    """One run of a task. Times are seconds, of one clock for all that are compared."""

    number: int
    key: str
    began: float
    ended: float


class Book:
    """What the bodies of one round did.

    Attributes:
        bodies: those that ended, in the order in which they did.
        began: the numbers of those that began, and when.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.bodies: list[Body] = []
        self.began: dict[int, float] = {}
        self.go_on = asyncio.Event()
        """What bodies wait for that hold."""
        self._seconds = seconds

    async def body(self, number: int, key: str) -> None:
        """Take a while."""
        began = self.began[number] = time.perf_counter()
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self.bodies.append(Body(number, key, began, time.perf_counter()))

    async def hold(self, number: int, key: str) -> None:
        """Take until told to go on."""
        began = self.began[number] = time.perf_counter()
        await self.go_on.wait()
        self.bodies.append(Body(number, key, began, time.perf_counter()))


def check(bodies: Sequence[Body], numbers: Iterable[int]) -> None:
    """Check that each task ran once, and no two of a key at the same time.

    Raises:
        NotDoneError: it is not so.
    """
    ran = Counter(body.number for body in bodies)
    expected = Counter(numbers)
    if ran != expected:
        raise NotDoneError(f"missing: {expected - ran}, too often: {ran - expected}")
    by_key: dict[str, list[Body]] = {}
    for body in sorted(bodies, key=lambda body: body.began):
        by_key.setdefault(body.key, []).append(body)
    for key, each in by_key.items():
        if any(after.began < before.ended for before, after in pairwise(each)):
            raise NotDoneError(f"two bodies of {key} at the same time, where the limit is 1")


def gaps(bodies: Iterable[Body]) -> list[float]:
    """Return the times from the end of one body to the beginning of the next."""
    line = sorted(bodies, key=lambda body: body.began)
    return [after.began - before.ended for before, after in pairwise(line)]


def inversions(bodies: Iterable[Body]) -> int:
    """Count the bodies after which one began that was added earlier.

    The first body does not count: of the tasks that a worker takes at once, any may find the slot
    free.
    """
    order = [body.number for body in sorted(bodies, key=lambda body: body.began)][1:]
    return sum(after < before for before, after in pairwise(order))


def task(kind: str | None, do: Do) -> Callable[..., Awaitable[None]]:
    """Return a task under a limit of this kind, one at a time for each key; None: without one."""
    if kind is None:

        async def free(number: int, key: str) -> None:
            await do(number, key)

        return free

    async def limited(
        number: int,
        key: str,
        limit: Any = KINDS[kind]("key", max_concurrent=1),  # noqa: ARG001, B008  (Docket's way)
    ) -> None:
        await do(number, key)

    return limited


@asynccontextmanager
async def new_docket(
    server: Server, *tasks: Callable[..., Awaitable[None]]
) -> AsyncGenerator[Docket]:
    """Open a docket that nobody used before; what it wrote is deleted afterwards."""
    gc.collect()
    try:
        name = f"{server.namespace}-{next(_dockets)}"
        async with asyncio.timeout(PATIENCE), Docket(name=name, url=server.url) as opened:
            for each in tasks:
                opened.register(each)
            yield opened
    finally:
        server.clear()


def new_worker(
    docket: Docket,
    *,
    poll: timedelta = POLL,
    schedule: timedelta = SCHEDULE,
    concurrency: int = 10,  # Docket's default
) -> Worker:
    """Return a worker of the settings that both limits get."""
    return Worker(
        docket,
        concurrency=concurrency,
        minimum_check_interval=poll,
        scheduling_resolution=schedule,
    )


async def until(
    condition: Callable[[], bool], of: asyncio.Future[Any], name: str, every: float = 0.02
) -> None:
    """Wait for a condition while something runs.

    Raises:
        NotDoneError: what was to run has ended.
    """
    while not condition():
        if of.done():
            raise NotDoneError(f"it ended before {name}: {of!r}")
        await asyncio.sleep(every)


@asynccontextmanager
async def at_work(worker: Worker, book: Book) -> AsyncGenerator[asyncio.Future[None]]:
    """Have a worker at work for a while; at the end its bodies go on, and it starts no others."""
    async with worker:
        running = asyncio.ensure_future(worker.run_forever())
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.sleep(0)
            book.go_on.set()
            await asyncio.gather(running, return_exceptions=True)
