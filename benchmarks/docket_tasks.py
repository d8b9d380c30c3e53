"""What the Docket benchmarks share: the two limits, tasks under them, workers, and the results.

Both limits get the same conditions: a docket of their own on one server, tasks that differ only in
the class of their limit, a worker with the same settings. The data of a round is deleted before the
next round.
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
"""How long a worker reads before it handles ended tasks (`minimum_check_interval`)."""
SCHEDULE = timedelta(milliseconds=20)
"""How often a worker checks for due tasks (`scheduling_resolution`)."""
PATIENCE = 180.0
"""Seconds after which a round is aborted."""

Do = Callable[[int, str], Awaitable[None]]
"""The body of the task with this number, under this key."""

_dockets = itertools.count()

# At INFO it logs the begin and end of each task, which would be measured as well.
logging.getLogger("docket").setLevel(logging.WARNING)


class NotDoneError(Exception):
    """A round did not run as planned: its times are not valid."""


class Body(NamedTuple):
    """One run of a task. Times are seconds, by one clock for all compared runs."""

    number: int
    key: str
    began: float
    ended: float


class Book:
    """The record of all bodies of one round.

    Attributes:
        bodies: the bodies that ended, in the order of their ends.
        began: the numbers of the tasks that began, and when.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.bodies: list[Body] = []
        self.began: dict[int, float] = {}
        self.go_on = asyncio.Event()
        """The event that holding bodies wait for."""
        self._seconds = seconds

    async def body(self, number: int, key: str) -> None:
        """Take some time."""
        began = self.began[number] = time.perf_counter()
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self.bodies.append(Body(number, key, began, time.perf_counter()))

    async def hold(self, number: int, key: str) -> None:
        """Hold until the event is set."""
        began = self.began[number] = time.perf_counter()
        await self.go_on.wait()
        self.bodies.append(Body(number, key, began, time.perf_counter()))


def check(bodies: Sequence[Body], numbers: Iterable[int]) -> None:
    """Check that each task ran once, and that no two bodies of a key ran at the same time.

    Raises:
        NotDoneError: the check failed.
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
    """Return the times from the end of each body to the begin of the next."""
    line = sorted(bodies, key=lambda body: body.began)
    return [after.began - before.ended for before, after in pairwise(line)]


def inversions(bodies: Iterable[Body]) -> int:
    """Count the bodies after which a task began that was added earlier.

    The first body does not count: any of the tasks that a worker fetches at once may find the free
    slot.
    """
    order = [body.number for body in sorted(bodies, key=lambda body: body.began)][1:]
    return sum(after < before for before, after in pairwise(order))


def task(kind: str | None, do: Do) -> Callable[..., Awaitable[None]]:
    """Return a task under a limit of this kind, one at a time per key; None: without a limit."""
    if kind is None:

        async def free(number: int, key: str) -> None:
            await do(number, key)

        return free

    async def limited(
        number: int,
        key: str,
        limit: Any = KINDS[kind]("key", max_concurrent=1),  # noqa: ARG001, B008  (Docket's style)
    ) -> None:
        await do(number, key)

    return limited


@asynccontextmanager
async def new_docket(
    server: Server, *tasks: Callable[..., Awaitable[None]]
) -> AsyncGenerator[Docket]:
    """Open a new docket; its data is deleted afterwards."""
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
    """Return a worker with the same settings for both limits."""
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
        NotDoneError: `of` ended before the condition was true.
    """
    while not condition():
        if of.done():
            raise NotDoneError(f"it ended before {name}: {of!r}")
        await asyncio.sleep(every)


@asynccontextmanager
async def at_work(worker: Worker, book: Book) -> AsyncGenerator[asyncio.Future[None]]:
    """Run a worker for a while; at the end its bodies continue, and it starts no new ones."""
    async with worker:
        running = asyncio.ensure_future(worker.run_forever())
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.sleep(0)
            book.go_on.set()
            await asyncio.gather(running, return_exceptions=True)
