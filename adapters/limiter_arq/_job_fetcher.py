"""Fetching of jobs: as many at once as the worker may start, in one step, and without a poll.

arq fetches them one by one, with four round trips each, and only when it polls: that suits jobs
that run, and is slow for a thousand jobs that only have to be parked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from limiter_arq._job_queue import FetchedJob, JobQueue, NotFetched, Ticket
from limiter_arq._worker_jobs import WorkerJobs
from limiter_core.jobs import BackgroundTasks

logger = logging.getLogger("arq.limiter")


@dataclass(slots=True, eq=False)
class JobFetcher:
    """Fetches jobs for a worker, and starts them.

    Attributes:
        run: runs a job that was fetched.
        on_job_left: called each time when a job has left the worker.
        read_limit: how many ids of due jobs the worker reads at once.
        in_progress: seconds after which arq counts a job as abandoned.
        is_open: whether arq's loop runs, so that jobs may be started.
        has_more: whether jobs may be due that were not started since no slot was free.
    """

    jobs: WorkerJobs
    queue: JobQueue
    background: BackgroundTasks
    run: Callable[[FetchedJob], Coroutine[Any, Any, None]]
    on_job_left: Callable[[], object]
    read_limit: int
    in_progress: float
    is_open: bool = False
    has_more: bool = False
    _is_fetching_more: bool = False

    def free_slots(self) -> int:
        """Return how many more jobs can be started now."""
        return self.jobs.free_slots() if self.is_open else 0

    async def start_due(self, job_ids: Sequence[bytes]) -> None:
        """Start jobs that are due, as many as may be; safe from cancellation."""
        unfinished = self.jobs.unfinished()
        due = [job_id for each in job_ids if (job_id := each.decode()) not in unfinished]
        some = False
        while due and (free := self.free_slots()):
            # To its end: a signal must not come between fetching jobs and knowing of it.
            found = await self.background.finish(
                self.start([(job_id, None) for job_id in due[:free]])
            )
            some = some or any(isinstance(each, FetchedJob) for each in found)
            due = due[free:]
        self.has_more = bool(due) or (some and len(job_ids) >= self.read_limit)
        self.fetch_more()

    async def start(
        self,
        jobs: Sequence[tuple[str, int | None]],
        stale_after: float | None = None,
        ticket: str = "",
    ) -> list[FetchedJob | NotFetched]:
        """Fetch jobs and start them; Redis is not asked for more than may be started.

        Args:
            jobs: ids, each with its new score, or None to leave it.
            stale_after: see `JobQueue.fetch`.
            ticket: of the one job, if its slot is kept for it. A worker that fetched the job before
                and was killed has deleted the note of it.
        """
        jobs, left = jobs[: (free := self.free_slots())], jobs[free:]
        found: list[FetchedJob | NotFetched] = []
        if jobs:
            found = await self._fetch(jobs, stale_after, Ticket(ticket, ()) if ticket else None)
        return [*found, *(NotFetched.NO_FREE_SLOT for _ in left)]

    async def _fetch(
        self,
        jobs: Sequence[tuple[str, int | None]],
        stale_after: float | None,
        ticket: Ticket | None,
    ) -> list[FetchedJob | NotFetched]:
        self.jobs.reserve(len(jobs))
        started = 0
        try:
            found = await self.queue.fetch(jobs, self.in_progress, stale_after)
            found = [
                each._replace(ticket=ticket)
                if isinstance(each, FetchedJob) and each.ticket is None
                else each
                for each in found
            ]
            for each in found:
                if isinstance(each, FetchedJob):
                    if self.is_open and self.jobs.may_start():
                        self._start(each)
                        started += 1
                    else:  # a signal came in between
                        await self._put_back(each)
            return found
        finally:
            self.jobs.release(len(jobs) - started)

    def _start(self, job: FetchedJob) -> None:
        def ended(unstarted: bool) -> None:
            if unstarted:  # a job that took its first step ends without a CancelledError
                self.background.begin(self._put_back(job))
            self.jobs.release(1)
            self.on_job_left()
            self.fetch_more()

        self.jobs.start(job.job_id, self.run(job), ended)

    async def _put_back(self, job: FetchedJob) -> None:
        await self.queue.put_back(job.job_id, job.score, ticket=job.ticket)

    def fetch_more(self) -> None:
        """Start jobs that were due when no slot was free; arq itself does so at its next poll."""
        if self.has_more and not self._is_fetching_more and self.free_slots():
            self._is_fetching_more = True
            self.background.begin(self._fetch_more())

    async def _fetch_more(self) -> None:
        try:
            while self.has_more and self.free_slots():
                await self.start_due(await self.queue.due(self.read_limit))
        except (RedisError, OSError):
            logger.debug("left to the next poll", exc_info=True)
        finally:
            self._is_fetching_more = False
