"""A job of arq whose waits are traced, and its runs as well; see tests/_traced_jobs.py."""

from __future__ import annotations

import asyncio
from typing import Any

from arq.connections import RedisSettings

from limiter_arq import ConcurrencyLimit, limited
from tests._job_events import URL, may_end
from tests._traced_jobs import STRATEGY, JobSpans

spans = JobSpans()


@limited(ConcurrencyLimit(STRATEGY, 1, name="billing"))
async def work(ctx: dict[Any, Any]) -> None:
    while not may_end():  # noqa: ASYNC110  (it is in a file)
        await asyncio.sleep(0.01)


class WorkerSettings:
    functions = (work,)
    redis_settings = RedisSettings.from_dsn(URL)
    poll_delay = 0.1
    on_job_start = spans.begin
    on_job_end = spans.end
