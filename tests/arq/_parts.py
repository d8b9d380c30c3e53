"""The jobs of a worker, built without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from arq.connections import ArqRedis
from arq.utils import timestamp_ms

from limiter_arq._job_queue import JobQueue, ParkedJob
from limiter_arq._worker_jobs import WorkerJobs


class Jobs(WorkerJobs):
    """The jobs of a worker that there is not: as many at once as the test says."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.may = True
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.bodies: set[str] = set()
        self.cancelled: list[tuple[str, bool]] = []

    def may_start(self) -> bool:
        return self.may

    def free_slots(self) -> int:
        return self.slots

    def reserve(self, count: int) -> None:
        self.slots -= count

    def release(self, count: int = 1) -> None:
        self.slots += count

    def unfinished(self) -> set[str]:
        return {job_id for job_id, task in self.tasks.items() if not task.done()}

    def is_body_running(self, job_id: str) -> bool:
        return job_id in self.bodies

    def start(
        self, job_id: str, job: Coroutine[Any, Any, None], on_end: Callable[[bool], object]
    ) -> None:
        self.tasks[job_id] = task = asyncio.create_task(job)
        task.add_done_callback(lambda task: on_end(task.cancelled()))

    def is_task_of(self, job_id: str, task: asyncio.Task[Any]) -> bool:
        return self.tasks.get(job_id) is task

    def cancel_body(self, job_id: str, *, as_aborted: bool) -> None:
        self.cancelled.append((job_id, as_aborted))

    def forget_abort(self, job_id: str) -> None: ...


async def parked(pool: ArqRedis, queue: JobQueue, job_id: str) -> ParkedJob:
    await pool.enqueue_job("work", _job_id=job_id)
    await queue.put_back(job_id, timestamp_ms() + 60_000.5)
    return ParkedJob("arq:queue", job_id, timestamp_ms())
