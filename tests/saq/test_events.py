"""Events, log and results of real `saq` worker processes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from saq.job import TERMINAL_STATUSES

from limiter_saq import ConcurrencyLimit, LimitedQueue
from tests._job_events import OPTIONS, Burst, by, options_of
from tests._job_workers import JobWorkers
from tests.faults._jobs import Framework
from tests.redis._servers import Server

_MODULE = "tests.saq.workers.event_jobs"
SAQ = Framework(
    _MODULE, ("saq", f"{_MODULE}.settings", "-v"), ("saq.worker", "limiter_saq", "limiter_redis")
)


class SaqWorkers(JobWorkers):
    """Two workers of a queue."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(SAQ, url, folder)
        client: Any = Redis.from_url(url, socket_timeout=None)
        limits = {name: ConcurrencyLimit(by(name), **options_of(name)) for name in OPTIONS}
        self.queue = LimitedQueue(client, limits=limits)

    async def add(self, function: str, name: str) -> None:
        await self.queue.enqueue(function, name=name, key=name, timeout=0)

    async def cancel(self, name: str) -> None:
        job = await self.queue.job(name)
        assert job is not None
        await self.queue.abort(job, "no longer needed")

    async def error(self, name: str) -> str | None:
        job = await self.queue.job(name)
        return job.error if job is not None and job.status in TERMINAL_STATUSES else None


async def test_a_burst_of_jobs(server: Server, tmp_path: Path) -> None:
    with closing(SaqWorkers(server.url, tmp_path)) as workers:
        try:
            await Burst(workers, tmp_path).run()
        finally:
            await workers.queue.disconnect()
