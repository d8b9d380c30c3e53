"""A worker of its own process: each job says on a list when it begins and ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from redis.asyncio import Redis
from saq.worker import Worker

from limiter_saq import ConcurrencyLimit, LimitedQueue

URL = os.environ["SHOP_URL"]


async def job(ctx: Any, *, user: int, name: int) -> None:
    log: Any = Redis.from_url(URL)
    await log.rpush("log", f"begin {name} {os.getpid()}")
    while await log.exists("shut"):  # noqa: ASYNC110  (it is in the server)
        await asyncio.sleep(0.01)
    await log.rpush("log", f"end {name} {os.getpid()}")
    await log.aclose()


async def main() -> None:
    client: Any = Redis.from_url(URL, socket_timeout=None)
    limit = ConcurrencyLimit("user", max_concurrent=1, lease=1.0)
    queue = LimitedQueue(client, limits={"job": limit})
    await Worker(queue, functions=[job], concurrency=4).start()


if __name__ == "__main__":
    asyncio.run(main())
