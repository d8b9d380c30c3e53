"""Jobs of arq. The module is what its workers run; as a program it enqueues the jobs."""

from __future__ import annotations

import asyncio
from typing import Any

from arq.connections import RedisSettings, create_pool

from limiter_arq import LIMIT_BY, ConcurrencyLimit, LimitedWorker, limited
from tests.faults.workers.job_notes import BODY, CLAIM, LEASE, LIMITS, NUMBERS, URL, noted

IN_PROGRESS = 1.0
"""Seconds after which arq gives a job of a dead worker to another: 310 by default."""


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(name), LIMITS[name], lease=LEASE)


async def body(ctx: dict[Any, Any], number: int) -> None:
    lease = ctx["lease"]
    with noted(number, lease.fencing_token, lease.id, lambda: lease.lost):
        await asyncio.sleep(BODY)


@limited(limit("one"))
async def one(ctx: dict[Any, Any], number: int) -> None:
    await body(ctx, number)


@limited(limit("two"))
async def two(ctx: dict[Any, Any], number: int) -> None:
    await body(ctx, number)


@limited(limit("one"), limit("two"))
async def both(ctx: dict[Any, Any], number: int) -> None:
    await body(ctx, number)


class WorkerSettings:
    functions = (one, two, both)
    redis_settings = RedisSettings.from_dsn(URL)
    claim = CLAIM
    poll_delay = 0.1
    max_tries = 100
    keep_result = 60


_init = LimitedWorker.__init__


def init(self: LimitedWorker, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    self.in_progress_timeout_s = IN_PROGRESS


LimitedWorker.__init__ = init  # type: ignore[method-assign]


async def enqueue() -> None:
    pool = await create_pool(RedisSettings.from_dsn(URL))
    for number in NUMBERS:
        await pool.enqueue_job(("one", "two", "both")[number % 3], number)
        await asyncio.sleep(0.002)  # its times are milliseconds
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(enqueue())
