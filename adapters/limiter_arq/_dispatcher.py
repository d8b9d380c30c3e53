"""Dispatch of granted jobs: each is started here if a slot of the worker is free, else elsewhere.

The process whose step freed a slot is notified of the job that got it: a job of this worker's queue
or of another queue in the same Redis. Correctness does not rest on it: the sweep offers a slot
again when the claim time is over, and a parked job comes back by itself in the end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from limiter_arq._job_fetcher import JobFetcher
from limiter_arq._job_queue import JobQueue, NotFetched, ParkedJob
from limiter_arq._worker_jobs import WorkerJobs
from limiter_core.jobs import BackgroundTasks
from limiter_core.requests import Notice

logger = logging.getLogger("arq.limiter")


@dataclass(slots=True, eq=False)
class Dispatcher:
    """Starts granted jobs, or makes them due for other workers; made in the worker's event loop.

    Attributes:
        queue: the worker's queue.
        drop: drops the ticket of a job that is gone.
        count_ending: returns how many of the worker's jobs have ended and are about to leave it.
        stale_after: seconds after which arq's in-progress mark of a job, whose slot is still kept
            for it, counts as that of a dead worker; None: never.
    """

    queue: JobQueue
    jobs: WorkerJobs
    fetcher: JobFetcher
    background: BackgroundTasks
    drop: Callable[[str], Awaitable[object]]
    count_ending: Callable[[], int]
    stale_after: float | None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _thread: int = field(default_factory=threading.get_ident)
    _kept: dict[str, tuple[ParkedJob, str]] = field(
        default_factory=dict[str, tuple[ParkedJob, str]]
    )

    def on_notice(self, notice: Notice) -> None:
        """Dispatch a job whose waiting ended, by a grant or a refusal; from any thread."""
        parked = ParkedJob.from_payload(notice.payload)
        if threading.get_ident() == self._thread:
            self.dispatch(parked, notice.id)
        else:
            with suppress(RuntimeError):  # the loop is closed: another worker's sweep does it
                self._loop.call_soon_threadsafe(self.dispatch, parked, notice.id)

    def dispatch(self, parked: ParkedJob, ticket: str = "") -> None:
        """Start a job, or make it due for another worker.

        Args:
            parked: the job.
            ticket: its ticket, if its slot is kept for it.
        """
        self.background.begin(self._dispatch(parked, ticket))

    def dispatch_kept(self) -> None:
        """Dispatch one of the jobs that are kept until a job leaves this worker."""
        if self._kept and self.fetcher.free_slots():
            self.dispatch(*self._kept.pop(next(iter(self._kept))))

    async def _dispatch(self, parked: ParkedJob, ticket: str) -> None:
        own = parked.queue == self.queue.name
        if own and self.jobs.is_body_running(parked.job_id):
            return  # its body lost the lease and runs on: the next try waits until it ends
        if own and self.fetcher.free_slots():
            # The slot is still kept for the job, so it does not run. If arq's mark says for long
            # that it does, its worker died after setting it. (A slow worker finds the slot held.)
            stale_after = self.stale_after if ticket else None
            job = parked.job_id, parked.score
            (found,) = await self.fetcher.start([job], stale_after, ticket)
            if found is NotFetched.GONE:
                await self._drop_ticket(ticket)
            if found is not NotFetched.NO_FREE_SLOT:
                return
        # From now on the job is due, whichever worker dies. If a job of this worker is about to
        # leave it, this worker is the fastest.
        keep = own and len(self._kept) < self.count_ending()
        if keep:
            self._kept[parked.job_id] = parked, ticket
        if not await self.queue.bring_forward(parked, notify=not keep):
            self._kept.pop(parked.job_id, None)
            await self._drop_ticket(ticket)
        elif keep:
            self.dispatch_kept()  # the other job may have left before this one was kept

    async def _drop_ticket(self, ticket: str) -> None:
        if ticket:  # its job is gone (expired, deleted, aborted): the next gets the slot
            await self.drop(ticket)

    async def subscribe(self) -> None:
        """Start jobs of this queue that other workers brought forward, until cancelled."""
        try:
            async for job in self.queue.subscribe():
                if self.fetcher.free_slots():
                    self.background.begin(self.fetcher.start([(job.job_id, job.score)]))
        except (RedisError, OSError):
            logger.debug("subscribing again", exc_info=True)
