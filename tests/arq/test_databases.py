"""Queues of one name in two databases of one server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.utils import timestamp_ms
from arq.worker import func

from limiter_arq import limited
from limiter_arq._job_queue import JobQueue, ParkedJob
from tests.redis._servers import Server
from tests.redis._tools import until

from ._local_worker import LocalWorker
from ._tools import ONE


async def test_workers_are_told_only_of_jobs_in_their_own_database(
    server: Server, pool: ArqRedis, start_worker: Callable[..., Any]
) -> None:
    """Also if the job of the other database has the same name, and is not due for an hour."""
    begun: list[tuple[int, str]] = []

    def play_in(database: int) -> Any:
        @limited(ONE)
        async def run(ctx: dict[Any, Any]) -> None:
            begun.append((database, ctx["job_id"]))

        return func(run, name="run")

    other_url = server.url.removesuffix("0") + "1"
    other_pool = await create_pool(RedisSettings.from_dsn(other_url))

    async def bring_forward(there: ArqRedis, job_id: str) -> None:
        queue = JobQueue(there, "arq:queue")
        parked = ParkedJob("arq:queue", job_id, timestamp_ms())
        assert await queue.bring_forward(parked, notify=True)
        await queue.aclose()

    await start_worker([play_in(0)])
    async with LocalWorker(other_url, [play_in(1)], {}):
        channels = [f"arq:queue:limiter-wake:{database}" for database in (0, 1)]
        await until(
            lambda: [count for _, count in server.admin.pubsub_numsub(*channels)] == [1, 1],
            "each worker listens to its own database",
        )
        for there, job_id in ((pool, "later"), (pool, "next"), (other_pool, "later")):
            await there.enqueue_job("run", _job_id=job_id, _defer_by=timedelta(hours=1))
        await bring_forward(other_pool, "later")
        await until(lambda: (1, "later") in begun, "it runs")
        await bring_forward(pool, "next")
        await until(lambda: (0, "next") in begun, "the later message was processed")
        assert begun == [(1, "later"), (0, "next")]
    await other_pool.aclose()
    server.admin.delete("arq:queue")
