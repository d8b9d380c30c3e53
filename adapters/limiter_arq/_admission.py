"""Admission of jobs: whether a job that was fetched may run now, has to wait, or is not to run.

It translates between arq and the gate; the store decides who gets a slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from arq.jobs import SerializationError, deserialize_job_raw
from arq.utils import timestamp_ms
from redis.exceptions import RedisError

from limiter_arq._decorator import limits_of, view_of
from limiter_arq._job_queue import (
    FetchedJob,
    JobQueue,
    ParkedJob,
    Ticket,
    is_parked,
    parked_for,
)
from limiter_arq._job_run import JobRun
from limiter_arq._worker_jobs import JobCall
from limiter_core import ConcurrencyLimit, StoreError
from limiter_core.jitter import jitter
from limiter_core.jobs import BackgroundTasks, Held, Job, JobGate, Waiting
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time

FIRST_RECHECK, LAST_RECHECK = 30.0, 600.0
"""Seconds after which a parked job asks again by itself: the less often, the longer it waits. It
has to only if the store lost its data; else the sweep of a worker wakes it."""

RETRY_STORE_AFTER = 1.0
"""Seconds for which a job is put back when the store cannot be used."""

_TRIES_TO_PUT_BACK = 5


@dataclass(slots=True, eq=False)
class Admission:
    """Admits the jobs of one worker.

    Attributes:
        queue: the worker's queue.
        redis_id: the ID of arq's Redis.
        functions: those of the worker, by name.
        allows_aborts: whether `Job.abort()` works here.
        expires_extra: arq's setting `expires_extra_ms`, if the time to live of a job stands still
            while it waits; None if it runs on.
        on_lost: called in the event loop when a run's lease is lost.
        dispatch: called with a job, and its ticket, that got its slot while it was being parked.
        record_refusal: finishes a job that is not to run; see `WorkerJobs.record_refusal`.
    """

    gate: JobGate
    queue: JobQueue
    redis_id: str
    background: BackgroundTasks
    functions: Mapping[str, Any]
    deserializer: Callable[[bytes], dict[str, Any]] | None
    allows_aborts: bool
    expires_extra: int | None
    on_lost: Callable[[JobRun, Loss], None]
    dispatch: Callable[[ParkedJob, str], None]
    record_refusal: Callable[[str, JobCall, int, Exception], Coroutine[Any, Any, None]]
    _ask_again_at: float = 0.0

    async def admit(self, job: FetchedJob, run: JobRun) -> bool:
        """Ask for a job's slots; returns whether arq is to run it now.

        If not, the job was parked, put back or finished. A job without limits passes, and so does
        one that arq will not run anyway. When cancelled, the job is put back.
        """
        call = self._call_of(job)
        if call is None:
            if job.ticket is not None:  # its place, or its slot, is for the next
                self.background.begin(self.gate.drop(*job.ticket))
            return True
        if is_parked(job.score) or job.score == 1:  # 1: `Job.abort` made it due
            run.score = call.enqueued_ms
        limits = () if call.function is None else limits_of(call.function.coroutine)
        if not limits:
            if job.ticket is not None or call.function is None:  # it waited where it had a limit
                ticket = self._ticket_of(job, call)
                self.background.begin(self.gate.drop(ticket, job.waited_on))
            return True
        try:
            return await self._ask(job, run, call, limits)
        except asyncio.CancelledError:
            if not run.settled:
                await self.background.finish(self._put_back(job, run.score))
            raise

    def _call_of(self, job: FetchedJob) -> JobCall | None:
        """Return the call of a job; None if arq finds that it expired, or cannot be read."""
        if job.raw is None:
            return None
        try:
            name, args, kwargs, _, enqueued_ms = deserialize_job_raw(
                job.raw, deserializer=self.deserializer
            )
        except SerializationError:
            return None
        return JobCall(name, tuple(args), kwargs, self.functions.get(name), enqueued_ms)

    def _ticket_of(self, job: FetchedJob, call: JobCall) -> str:
        # Each enqueueing of an id has a ticket of its own; all tries of it share that, so that a
        # second delivery of a try that still runs is recognized (S18). They do not meet each other:
        # the slots of a try are released before arq lets another worker fetch the job.
        return f"arq:{self.redis_id}:{job.job_id}:{call.enqueued_ms}"

    async def _ask(
        self, job: FetchedJob, run: JobRun, call: JobCall, limits: tuple[ConcurrencyLimit, ...]
    ) -> bool:
        ticket = self._ticket_of(job, call)
        try:
            view = view_of(call.function.coroutine, call.args, call.kwargs)
        except TypeError as error:
            run.refusal = error  # as the call itself would fail
            return True
        if job.aborted and self.allows_aborts:
            dropped = self.gate.drop(ticket, job.waited_on, function=view.function_name)
            self.background.begin(dropped)
            return True  # arq records it as aborted
        now = time.monotonic()
        if now < self._ask_again_at:
            await self._wait_for_store(job)
            return False
        if self._ask_again_at:  # one job finds out for all whether the store is back
            self._ask_again_at = now + RETRY_STORE_AFTER
        parked = ParkedJob(self.queue.name, job.job_id, run.score)
        # The wait of a job that ran before begins now, or its limit's `timeout` would have passed
        # long ago; so does that of one that was put back: when it was due is no longer known. (A
        # ticket that exists keeps its place and its time.)
        again = job.tries or job.score != run.score
        again = again and any(limit.timeout is not None for limit in limits)
        request = Job(
            ticket,
            limits,
            view,
            parked.payload(),
            order=None if again else run.score * 1000,
            label=f"{job.job_id}:{call.name}",
            keys=job.waited_on,
        )
        loop = asyncio.get_running_loop()
        try:
            outcome = await self.gate.admit(
                request,
                lambda loss: loop.call_soon_threadsafe(self.on_lost, run, loss),
                confirmed=False,
            )
        except StoreError:
            self._ask_again_at = time.monotonic() + RETRY_STORE_AFTER
            await self._wait_for_store(job)
            return False
        except Exception as error:  # noqa: BLE001  (whatever a user's function of the call raised)
            self._ask_again_at = 0.0
            run.settled = True  # what has begun to settle it is not interrupted
            refused = self.record_refusal(job.job_id, call, job.tries, error)
            await self.background.finish(refused)
            return False
        self._ask_again_at = 0.0
        if isinstance(outcome, Waiting):
            run.settled = True
            await self.background.finish(self._park(job, call, parked, outcome, ticket))
            return False
        if isinstance(outcome, Held):
            # Another delivery of it runs: it comes again when that lease may have ended.
            seconds = (outcome.expires_in or RETRY_STORE_AFTER) + jitter.uniform(0.05, 0.1)
            await self._put_back(job, parked_for(seconds))
            return False
        run.lease = outcome
        run.on_begin = lambda: self.gate.confirm(outcome)
        return True

    async def _park(
        self, job: FetchedJob, call: JobCall, parked: ParkedJob, waiting: Waiting, ticket: str
    ) -> None:
        waited = timestamp_ms() / 1000 - call.enqueued_ms / 1000
        seconds = min(max(FIRST_RECHECK, waited), LAST_RECHECK)
        seconds *= jitter.uniform(1.0, 1.3)
        if waiting.patience is not None:
            seconds = min(seconds, waiting.patience)
        life = None
        if self.expires_extra is not None:
            least = int(seconds * 1000) + self.expires_extra
            life = least if 0 <= job.life < least else None
        elif job.life >= 0:  # the worker finds in time that it expired
            seconds = min(seconds, job.life / 1000)
        await self._put_back(job, parked_for(seconds), life, Ticket(ticket, waiting.keys))
        self.gate.confirm(waiting)
        try:
            granted = await self.gate.handed_over(waiting)
        except StoreError:
            return  # the slot is offered again
        if granted:
            self.dispatch(parked, ticket)

    async def _wait_for_store(self, job: FetchedJob) -> None:
        seconds = RETRY_STORE_AFTER * jitter.uniform(1.0, 1.5)
        await self._put_back(job, parked_for(seconds))

    async def _put_back(
        self,
        job: FetchedJob,
        score: float,
        life: int | None = None,
        ticket: Ticket | None = None,
    ) -> None:
        """Put a job back; tries again for some seconds while arq's Redis is away.

        Raises:
            RedisError: it stayed away. arq's worker ends then, as its polling does anyway.
        """
        for left in reversed(range(_TRIES_TO_PUT_BACK)):
            try:
                await self.queue.put_back(job.job_id, score, life, ticket or job.ticket)
            except (RedisError, OSError):
                if not left:
                    raise
                await asyncio.sleep(RETRY_STORE_AFTER)
            else:
                return
