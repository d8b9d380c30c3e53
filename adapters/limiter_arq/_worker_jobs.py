"""The jobs that one arq worker runs: its counters, its tasks, and how it records a refused job.

All attributes of arq's worker that it changes while it runs are used here alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from arq.constants import keep_cronjob_progress
from arq.jobs import serialize_result
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed, Worker

from limiter_core import LimiterError, LimitReached, Superseded

logger = logging.getLogger("arq.limiter")


class JobCall(NamedTuple):
    """The call that a job asks for.

    Attributes:
        function: what the worker has registered under the name: arq's `Function` or `CronJob`.
        enqueued_ms: milliseconds since the epoch.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    function: Any
    enqueued_ms: int


def jobs_ended(worker: Worker) -> int:
    """Return how many runs of jobs have ended."""
    return worker.jobs_complete + worker.jobs_retried + worker.jobs_failed


class WorkerJobs:
    """The jobs that one arq worker runs: how many more it may start, and their tasks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def may_start(self) -> bool:
        """Whether the worker starts jobs: from a signal on it does not."""
        return self._worker.allow_pick_jobs

    def free_slots(self) -> int:
        """Return how many more jobs the worker may start now."""
        worker = self._worker
        if not worker.allow_pick_jobs:
            return 0
        free = worker.max_jobs - worker.job_counter
        if worker.burst and worker.max_burst_jobs >= 0:
            free = min(free, worker.max_burst_jobs - jobs_ended(worker) - worker.job_counter)
        return max(0, free)

    def reserve(self, count: int) -> None:
        """Count jobs as running before they are fetched: several tasks start jobs."""
        self._worker.job_counter += count

    def release(self, count: int = 1) -> None:
        """Give such slots of the worker back."""
        self._worker.job_counter -= count

    def unfinished(self) -> set[str]:
        """Return the ids of the jobs that have not left the worker."""
        return {job_id for job_id, task in self._worker.tasks.items() if not task.done()}

    def is_body_running(self, job_id: str) -> bool:
        """Whether the body of this job runs in this worker."""
        return job_id in self._worker.job_tasks

    def start(
        self, job_id: str, job: Coroutine[Any, Any, None], on_end: Callable[[bool], object]
    ) -> None:
        """Run a job in a task of its own.

        Args:
            job_id: arq's.
            job: runs it.
            on_end: called when it has ended: with True if it was cancelled before its first step.
        """
        tasks = self._worker.tasks

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or task.exception() is None:  # arq has to see another exception
                if tasks.get(job_id) is task:
                    del tasks[job_id]
            on_end(task.cancelled())

        tasks[job_id] = task = self._worker.loop.create_task(job)
        task.add_done_callback(ended)

    def is_task_of(self, job_id: str, task: asyncio.Task[Any]) -> bool:
        """Whether a task is the one that `start` made for this job."""
        return self._worker.tasks.get(job_id) is task

    def cancel_body(self, job_id: str, *, as_aborted: bool) -> None:
        """Cancel the body of a job; arq notes it as aborted, or tries it again."""
        if as_aborted:
            self._worker.aborting_tasks.add(job_id)
        task = self._worker.job_tasks.get(job_id)
        if task is not None:
            task.cancel()

    def forget_abort(self, job_id: str) -> None:
        """Forget an abort that came too late: a later cancellation is none."""
        self._worker.aborting_tasks.discard(job_id)

    async def record_refusal(
        self, job_id: str, call: JobCall, tries: int, error: Exception
    ) -> None:
        """Finish a job that is not to run, as arq finishes one that it cannot run.

        Args:
            job_id: arq's.
            call: what it asked for.
            tries: the tries that it has spent.
            error: why it is not to run.
        """
        worker, function = self._worker, call.function
        ref, keep_in_progress = f"{job_id}:{call.name}", None
        if hasattr(function, "next_run"):  # a cron job: no late worker may run it again
            ref, keep_in_progress = call.name, keep_cronjob_progress
        now = timestamp_ms()
        result = _result_of(error)
        if not isinstance(error, LimitReached | Superseded):
            logger.error("cannot admit %s: %r", ref, error, exc_info=error)
        forever = function.keep_result_forever
        forever = worker.keep_result_forever if forever is None else forever
        seconds = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
        data = None
        if forever or (seconds or 0) > 0:
            data = serialize_result(
                call.name,
                call.args,
                call.kwargs,
                tries + 1,
                call.enqueued_ms,
                False,
                result,
                now,
                now,
                ref,
                worker.queue_name,
                job_id=job_id,
                serializer=worker.job_serializer,
            )
        worker.jobs_failed += 1
        finish = Worker.finish_job  # not the subclass's, which is for jobs that ran
        await finish(worker, job_id, True, data, seconds, forever, None, keep_in_progress)


def _result_of(error: Exception) -> Exception:
    """Return the result of a refused job: of a class that exists without this package, too."""
    if isinstance(error, LimitReached):
        return JobExecutionFailed(f"concurrency limit reached: {error}")
    if isinstance(error, Superseded):
        return JobExecutionFailed(f"superseded: {error}")
    if isinstance(error, LimiterError):
        return JobExecutionFailed(f"{type(error).__name__}: {error}")
    return error
