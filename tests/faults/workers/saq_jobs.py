"""Jobs of SAQ. As a program it enqueues the jobs, or with "work" runs a worker of them."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any

from redis.asyncio import Redis
from saq.worker import Worker

from limiter_core.jobs import JobGate
from limiter_core.limits import ConcurrencyLimit
from limiter_core.strategies import LIMIT_BY
from limiter_saq import LimitedQueue, _queue
from tests.faults.workers.job_notes import BODY, CLAIM, LEASE, LIMITS, NUMBERS, URL, noted

_queue.JobGate = functools.partial(JobGate, claim=CLAIM)  # type: ignore[assignment, misc]

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("one"), LIMITS["one"], lease=LEASE)


async def one(ctx: Any, *, number: int) -> None:
    lease = next(lease for job, lease, *_ in queue._leases.values() if job.id == ctx["job"].id)
    with noted(number, lease.fencing_token, lambda: lease.lost):
        await asyncio.sleep(BODY)


def new_queue() -> LimitedQueue:
    client: Any = Redis.from_url(URL, socket_timeout=None)
    return LimitedQueue(client, limits={one: LIMIT}, name="faults")


queue = new_queue()


async def main() -> None:
    if sys.argv[1:] == ["work"]:
        await Worker(queue, functions=[one], concurrency=8).start()
        return
    for number in NUMBERS:
        await queue.enqueue("one", number=number, retries=20)
        await asyncio.sleep(0.002)  # its times are milliseconds
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
