"""Jobs of SAQ. The module is what its workers run; as a program it enqueues the jobs."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from limiter_saq import LIMIT_BY, ConcurrencyLimit, LimitedQueue
from tests.faults.workers.job_notes import BODY, CLAIM, LEASE, LIMITS, NUMBERS, URL, noted

HEARTBEAT = 2
"""Seconds after which SAQ takes a job that runs for a dead worker's."""


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(name), LIMITS[name], lease=LEASE)


async def body(ctx: Any, number: int) -> None:
    _, lease = queue._leases[id(ctx["job"])]
    with noted(number, lease.fencing_token, lease.id, lambda: lease.lost):
        await asyncio.sleep(BODY)


async def one(ctx: Any, *, number: int) -> None:
    await body(ctx, number)


async def two(ctx: Any, *, number: int) -> None:
    await body(ctx, number)


async def both(ctx: Any, *, number: int) -> None:
    await body(ctx, number)


FUNCTIONS: list[Any] = [one, two, both]

client: Any = Redis.from_url(URL, socket_timeout=None)
queue = LimitedQueue(
    client,
    limits={one: limit("one"), two: limit("two"), both: [limit("one"), limit("two")]},
    claim=CLAIM,
)

settings = {
    "queue": queue,
    "functions": FUNCTIONS,
    "timers": {"schedule": 1, "sweep": 1, "abort": 1},
}


async def enqueue() -> None:
    for number in NUMBERS:
        function = FUNCTIONS[number % 3].__name__
        await queue.enqueue(function, number=number, retries=100, heartbeat=HEARTBEAT)
        await asyncio.sleep(0.002)  # its times are milliseconds
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(enqueue())
