"""How a worker takes jobs: as many at once as there is room, in one step, and without a poll.

arq takes them one by one, four round trips each, and only when it polls: fine for jobs that run,
slow for a thousand that only learn that they have to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from arq.worker import Worker
from redis.exceptions import RedisError

from limiter_arq._job_queue import Absent, Shelf, Taken
from limiter_arq._log import logger
from limiter_core.jobs import Errands


class Intake:
    """Takes jobs for a worker, and starts them.

    Args:
        worker: arq's worker: its counters, tasks and settings.
        shelf: its queue.
        errands: for what goes on beside.
        run: runs a job that was taken.

    Attributes:
        open: whether arq's loop runs, so that jobs may be started.
        full: whether jobs may be due that were not started for want of room.
        on_room: called each time when a job has left the worker.
    """

    def __init__(
        self,
        worker: Worker,
        shelf: Shelf,
        errands: Errands,
        run: Callable[[Taken], Coroutine[Any, Any, None]],
    ) -> None:
        self._worker = worker
        self._shelf = shelf
        self._errands = errands
        self._run = run
        self._filling = False
        self.open = False
        self.full = False
        self.on_room: Callable[[], object] | None = None

    def room(self) -> int:
        """Return how many jobs could be started now."""
        worker = self._worker
        if not self.open or not worker.allow_pick_jobs:
            return 0
        room = worker.max_jobs - worker.job_counter
        if worker.burst and worker.max_burst_jobs >= 0:
            ended = worker.jobs_complete + worker.jobs_retried + worker.jobs_failed
            room = min(room, worker.max_burst_jobs - ended - worker.job_counter)
        return max(0, room)

    def runs(self, job_id: str) -> bool:
        """Whether the body of this job runs in this worker."""
        return job_id in self._worker.job_tasks

    async def start_due(self, job_ids: Sequence[bytes]) -> None:
        """Start jobs that are due, as far as there is room; safe from cancellation."""
        tasks = self._worker.tasks
        running = {job_id for job_id, task in tasks.items() if not task.done()}
        due = [job_id for each in job_ids if (job_id := each.decode()) not in running]
        some = False
        while due and (room := self.room()):
            # To its end: a signal must not come between taking jobs and knowing of it.
            found = await self._errands.finish(
                self.start([(job_id, None) for job_id in due[:room]])
            )
            some = some or any(isinstance(each, Taken) for each in found)
            due = due[room:]
        self.full = bool(due) or (some and len(job_ids) >= self._worker.queue_read_limit)
        self.fill()

    async def start(
        self, jobs: Sequence[tuple[str, int | None]], stale_after: float | None = None
    ) -> list[Taken | Absent]:
        """Take jobs and start them; those for which there is no room are not tried.

        Args:
            jobs: ids, each with the score that it comes back to, or None to leave it.
            stale_after: see `Shelf.take`.
        """
        jobs, left = jobs[: (room := self.room())], jobs[room:]
        found: list[Taken | Absent] = []
        if jobs:
            self._worker.job_counter += len(jobs)  # at once: others start jobs, too
            found = await self._take(jobs, stale_after)
        return [*found, *(Absent.NO_ROOM for _ in left)]

    async def _take(
        self, jobs: Sequence[tuple[str, int | None]], stale_after: float | None
    ) -> list[Taken | Absent]:
        worker = self._worker
        begun = 0
        try:
            for _ in jobs:
                await worker.sem.acquire()  # never waits: it allows one more than the counter does
            found = await self._shelf.take(jobs, worker.in_progress_timeout_s, stale_after)
            for each in found:
                if isinstance(each, Taken):
                    if self.open and worker.allow_pick_jobs:
                        self._begin(each)
                        begun += 1
                    else:  # a signal came in between
                        await self._shelf.let_go(each.job_id, each.score, None)
            return found
        finally:
            for _ in jobs[begun:]:
                self._leave()

    def _begin(self, taken: Taken) -> None:
        tasks = self._worker.tasks

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():  # before its first step: what began ends without an error
                self._errands.begin(self._shelf.let_go(taken.job_id, taken.score, None))
            if task.cancelled() or task.exception() is None:  # else arq has to see it
                if tasks.get(taken.job_id) is task:
                    del tasks[taken.job_id]
            self._leave()
            if self.on_room is not None:
                self.on_room()
            self.fill()

        task = self._worker.loop.create_task(self._run(taken))
        tasks[taken.job_id] = task
        task.add_done_callback(ended)

    def _leave(self) -> None:
        self._worker.job_counter -= 1
        self._worker.sem.release()

    def fill(self) -> None:
        """Start what is due and found no room before; arq itself does so at its next poll."""
        if self.full and not self._filling and self.room():
            self._filling = True
            self._errands.begin(self._fill())

    async def _fill(self) -> None:
        try:
            while self.full and self.room():
                await self.start_due(await self._shelf.due(self._worker.queue_read_limit))
        except (RedisError, OSError):
            logger.debug("left to the next poll", exc_info=True)
        finally:
            self._filling = False
