"""Events, log and results of real workers, `python -m limiter_arq`."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from tests._job_events import Burst
from tests._job_workers import JobWorkers
from tests.faults._jobs import Framework
from tests.redis._servers import Server

_MODULE = "tests.arq.workers.event_jobs"
ARQ = Framework(
    _MODULE, ("limiter_arq", f"{_MODULE}.WorkerSettings"), ("limiter_arq", "limiter_redis")
)


class ArqWorkers(JobWorkers):
    """Two workers of arq."""

    def __init__(self, pool: ArqRedis, url: str, folder: Path) -> None:
        super().__init__(ARQ, url, folder)
        self._pool = pool

    async def add(self, function: str, name: str) -> None:
        await self._pool.enqueue_job(function, name, _job_id=name)

    async def cancel(self, name: str) -> None:
        with suppress(TimeoutError):  # it waits for the end, which is not asked for here
            await Job(name, self._pool).abort(timeout=0)

    async def error(self, name: str) -> str | None:
        job = Job(name, self._pool)
        if await job.status() is not JobStatus.complete:
            return None
        found = await job.result_info()
        return None if found is None else str(found.result)


async def test_a_burst_of_jobs(pool: ArqRedis, server: Server, tmp_path: Path) -> None:
    with closing(ArqWorkers(pool, server.url, tmp_path)) as workers:
        await Burst(workers, tmp_path).run()
