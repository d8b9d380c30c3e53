"""A job of SAQ whose waits are traced, and its runs as well; see tests/_traced_jobs.py."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from limiter_saq import ConcurrencyLimit, LimitedQueue
from tests._job_events import URL, may_end
from tests._traced_jobs import STRATEGY, JobSpans

spans = JobSpans()


async def work(ctx: Any) -> None:
    while not may_end():  # noqa: ASYNC110  (it is in a file)
        await asyncio.sleep(0.01)


client: Any = Redis.from_url(URL, socket_timeout=None)
queue = LimitedQueue(client, limits={"work": ConcurrencyLimit(STRATEGY, 1, name="billing")})
settings = {
    "queue": queue,
    "functions": [work],
    "before_process": spans.begin,
    "after_process": spans.end,
}
