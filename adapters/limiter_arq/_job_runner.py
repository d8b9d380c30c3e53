"""The way of a job through a worker: admission, its run in arq, the release of its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from limiter_arq._job_queue import FetchedJob, JobQueue
from limiter_arq._job_run import JobRun, current_run
from limiter_arq._worker_jobs import WorkerJobs
from limiter_core.jobs import BackgroundTasks
from limiter_core.requests import Loss

_RESULT_WAITS = 0.2
"""Seconds that a result waits for the release of the lease, when the store is slow."""


@dataclass(slots=True, eq=False)
class JobRunner:
    """Runs the jobs that a worker fetched.

    Attributes:
        queue: the worker's queue.
        admit: asks for the slots of a job; returns whether it may run now.
        run_in_arq: runs a job as arq does, given its id and score.
        admitting: how many jobs are being admitted.
        admitted: how many were admitted and have not left the worker.
        ending: of these, how many have a body that ended.
        none_admitting: set while no job is being admitted.
    """

    jobs: WorkerJobs
    queue: JobQueue
    background: BackgroundTasks
    admit: Callable[[FetchedJob, JobRun], Awaitable[bool]]
    run_in_arq: Callable[[str, int], Awaitable[None]]
    admitting: int = 0
    admitted: int = 0
    ending: int = 0
    none_admitting: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, job: FetchedJob) -> None:
        """Run a job, if it is admitted."""
        run = JobRun(job.job_id, int(job.score))
        current_run.set(run)  # in the context of this job's task, which its body inherits
        if not await self._admit(job, run):
            return
        run.on_end = self._release
        self.admitted += 1
        try:
            await self.run_in_arq(run.job_id, run.score)
        except asyncio.CancelledError:  # before or after the body, by a signal
            if not run.finishing:
                await self.background.finish(self._abandon(run))
        finally:
            run.end_body()
            self.ending -= 1
            self.admitted -= 1
            self.jobs.forget_abort(run.job_id)

    async def _admit(self, job: FetchedJob, run: JobRun) -> bool:
        self.admitting += 1
        self.none_admitting.clear()
        try:
            return await self.admit(job, run)
        except asyncio.CancelledError:
            return False  # it was put back
        finally:
            self.admitting -= 1
            if not self.admitting:
                self.none_admitting.set()

    async def _abandon(self, run: JobRun) -> None:
        """Put a job back that arq forgets, once its slots are free for the next worker."""
        run.end_body()
        if run.release is not None:
            await asyncio.wait([run.release])
        await self.queue.put_back(run.job_id, run.score)

    def _release(self, run: JobRun) -> None:
        self.ending += 1
        if run.lease is not None:
            run.release = self.background.begin(run.lease.release())

    def on_lost(self, run: JobRun, loss: Loss) -> None:
        """Stop the body of a run whose lease is lost."""
        if run.ended:
            return
        run.loss = loss
        # arq records a preempted job as aborted, and does not try it again.
        self.jobs.cancel_body(run.job_id, as_aborted=loss is Loss.PREEMPTED)

    def finishing(self, job_id: str) -> JobRun | None:
        """Note that arq records the end of a job; returns the run, if it was admitted here."""
        run = current_run.get()
        if run is None or run.job_id != job_id:
            return None
        run.begin_body()
        run.end_body()  # of a body that never began
        run.finishing = True
        task = asyncio.current_task()
        if task is not None and not self.jobs.is_task_of(job_id, task):
            self.background.add(task)  # arq shields it, and forgets it when a signal comes
        return run

    async def before_result(
        self, job_id: str, increment: int | None, *, is_final: bool
    ) -> int | None:
        """Wait for the release of a job's lease before arq records how its run ended.

        Returns:
            What arq has to add to the score: another delivery may have changed that.
        """
        run = self.finishing(job_id)
        if run is None:
            return increment
        if run.release is not None:
            # A client that sees the result finds the slot free; and the next job starts first. But
            # if the job comes again, its next try must not meet the lease of this one.
            await asyncio.wait([run.release], timeout=_RESULT_WAITS if is_final else None)
        score = None if is_final else await self.queue.score(job_id)
        if score is None or score == run.score:
            return increment
        return (increment or 0) + int(run.score - score)
