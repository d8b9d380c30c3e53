"""The gate of one worker: whether a job that was taken may run now, has to wait, or is not to run.

It maps and translates; who gets a slot is decided in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from arq.constants import keep_cronjob_progress
from arq.jobs import SerializationError, deserialize_job_raw, serialize_result
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed, Worker
from redis.exceptions import RedisError

from limiter_arq._decorator import Run, limits_of, view_of
from limiter_arq._job_queue import Parked, Shelf, Taken, is_parked
from limiter_arq._log import logger
from limiter_core import ConcurrencyLimit, LimiterError, LimitReached, StoreError, Superseded
from limiter_core.jitter import jitter
from limiter_core.jobs import Errands, Held, Job, JobGate, Waiting
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time

FIRST_BACKSTOP, LAST_BACKSTOP = 30.0, 600.0
"""Seconds after which a job that waits is looked at though nobody woke it: the more seldom the
longer it waits. Only lost data of the store needs that; all else is the store's sweep's."""

PUT_OFF = 1.0
"""Seconds for which a job is put back when the store cannot be used."""

_TRIES_TO_LET_GO = 5


class _Known(NamedTuple):
    """A limited job, read."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    enqueued: int
    function: Any
    limits: tuple[ConcurrencyLimit, ...]


class Admission:
    """Admits the jobs of one worker.

    Args:
        worker: arq's worker: its functions and settings.
        gate: the limiter's gate.
        place: what names arq's Redis.
        shelf: the queue.
        errands: for what must not be cut short.
        lost: called in the event loop when a run's lease is lost.
        handed_over: called with a job that got its slot while it was being parked.
        wait_extends_expiry: whether a job's time to live stands still while it waits.
    """

    def __init__(
        self,
        worker: Worker,
        gate: JobGate,
        place: str,
        shelf: Shelf,
        errands: Errands,
        *,
        lost: Callable[[Run, Loss], None],
        handed_over: Callable[[Parked, str], None],
        wait_extends_expiry: bool,
    ) -> None:
        self._worker = worker
        self._gate = gate
        self._place = place
        self._shelf = shelf
        self._errands = errands
        self._lost = lost
        self._handed_over = handed_over
        self._wait_extends_expiry = wait_extends_expiry
        self._ask_again_at = 0.0

    async def admit(self, taken: Taken, run: Run) -> bool:
        """Ask for a job's slots; whether arq is to run it now.

        If not, the job was parked, put back or finished. A job without limits, and one that arq
        will not run anyway, passes. When cancelled, the job is put back.
        """
        known = self._read(taken, run)
        if known is None:
            return True
        try:
            return await self._ask(taken, run, known)
        except asyncio.CancelledError:
            if not run.settled:
                await self._errands.finish(self._let_go(taken.job_id, run.score))
            raise

    def _read(self, taken: Taken, run: Run) -> _Known | None:
        worker = self._worker
        if taken.raw is None:
            return None  # arq calls it expired
        try:
            name, args, kwargs, _, enqueued = deserialize_job_raw(
                taken.raw, deserializer=worker.job_deserializer
            )
        except SerializationError:
            return None
        if is_parked(taken.score) or taken.score == 1:  # 1: `Job.abort` had it look at
            run.score = enqueued
        function = worker.functions.get(name)
        limits = () if function is None else limits_of(function.coroutine)
        if not limits:
            return None
        return _Known(name, tuple(args), kwargs, enqueued, function, limits)

    async def _ask(self, taken: Taken, run: Run, known: _Known) -> bool:
        # Each enqueueing of an id has tickets of its own; all tries of it share them, so that a
        # second delivery of a try that still runs is known (S18). They do not meet each other:
        # a try's slots are given back before arq lets go of the job.
        ticket = f"arq:{self._place}:{taken.job_id}:{known.enqueued}"
        if taken.aborted and self._worker.allow_abort_jobs:
            self._errands.begin(self._gate.drop(ticket))
            return True  # arq notes it as aborted
        try:
            view = view_of(known.function.coroutine, known.args, known.kwargs)
        except TypeError as error:
            run.refusal = error  # as the call itself would fail
            return True
        now = time.monotonic()
        if now < self._ask_again_at:
            await self._put_off(taken)
            return False
        if self._ask_again_at:  # one asks for all whether the store is back
            self._ask_again_at = now + PUT_OFF
        parked = Parked(self._worker.queue_name, taken.job_id, run.score)
        # A job that ran before waits from now on, or its limit's `timeout` would be long over; so
        # does one that was put off: when it was due is not known any more. (A ticket that there is
        # keeps its place and its time.)
        again = taken.tries or taken.score != run.score
        again = again and any(limit.timeout is not None for limit in known.limits)
        job = Job(
            ticket,
            known.limits,
            view,
            parked.payload(),
            order=None if again else run.score * 1000,
            label=f"{taken.job_id}:{known.name}",
        )
        loop = asyncio.get_running_loop()

        def on_lost(loss: Loss) -> None:
            loop.call_soon_threadsafe(self._lost, run, loss)

        try:
            outcome = await self._gate.admit(job, on_lost)
        except StoreError:
            self._ask_again_at = time.monotonic() + PUT_OFF
            await self._put_off(taken)
            return False
        except Exception as error:  # noqa: BLE001  (whatever a user's function of the call raised)
            self._ask_again_at = 0.0
            run.settled = True  # once begun, these go to their end
            await self._errands.finish(self._refuse(taken, known, error))
            return False
        self._ask_again_at = 0.0
        if isinstance(outcome, Waiting):
            run.settled = True
            await self._errands.finish(self._park(taken, known, parked, outcome, ticket))
            return False
        if isinstance(outcome, Held):
            # Another delivery of it runs: come again when its lease may be over.
            seconds = (outcome.expires_in or PUT_OFF) + jitter.uniform(0.05, 0.1)
            await self._let_go(taken.job_id, _from_now(seconds))
            return False
        run.lease = outcome
        return True

    async def _park(
        self, taken: Taken, known: _Known, parked: Parked, waiting: Waiting, ticket: str
    ) -> None:
        waited = timestamp_ms() / 1000 - known.enqueued / 1000
        seconds = min(max(FIRST_BACKSTOP, waited), LAST_BACKSTOP)
        seconds *= jitter.uniform(1.0, 1.3)
        if waiting.patience is not None:
            seconds = min(seconds, waiting.patience)
        life = None
        if self._wait_extends_expiry:
            least = int(seconds * 1000) + self._worker.expires_extra_ms
            life = least if 0 <= taken.life < least else None
        elif taken.life >= 0:  # it is noticed in time that it expired
            seconds = min(seconds, taken.life / 1000)
        await self._let_go(taken.job_id, _from_now(seconds), life)
        try:
            crossed = await self._gate.handed_over(waiting)
        except StoreError:
            return  # it is offered again
        if crossed:
            self._handed_over(parked, ticket)

    async def _put_off(self, taken: Taken) -> None:
        seconds = PUT_OFF * jitter.uniform(1.0, 1.5)
        await self._let_go(taken.job_id, _from_now(seconds))

    async def _let_go(self, job_id: str, until: float, life: int | None = None) -> None:
        """Let go of a job; for some seconds even while arq's Redis is away.

        Raises:
            RedisError: it stayed away. arq's worker ends then, as its polling does anyway.
        """
        for left in reversed(range(_TRIES_TO_LET_GO)):
            try:
                await self._shelf.let_go(job_id, until, life)
            except (RedisError, OSError):
                if not left:
                    raise
                await asyncio.sleep(PUT_OFF)
            else:
                return

    async def _refuse(self, taken: Taken, known: _Known, error: Exception) -> None:
        """Finish a job that is not to run, in arq's own way for a job that it cannot run."""
        worker, function = self._worker, known.function
        ref, keep_in_progress = f"{taken.job_id}:{known.name}", None
        if hasattr(function, "next_run"):  # a cron job: workers that are late must not run it again
            ref, keep_in_progress = known.name, keep_cronjob_progress
        now = timestamp_ms()
        result: Exception = error
        if isinstance(error, LimiterError):
            # Of a class that is known where this package is not.
            result = JobExecutionFailed(_told(error))
        if isinstance(error, LimitReached | Superseded):
            logger.info("%6.2fs ⊘ %s not run, %s", (now - known.enqueued) / 1000, ref, result)
        else:
            logger.error("%s has no limits: %r", ref, error, exc_info=error)
        forever = function.keep_result_forever
        forever = worker.keep_result_forever if forever is None else forever
        seconds = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
        data = None
        if forever or (seconds or 0) > 0:
            data = serialize_result(
                known.name,
                known.args,
                known.kwargs,
                taken.tries + 1,
                known.enqueued,
                False,
                result,
                now,
                now,
                ref,
                worker.queue_name,
                job_id=taken.job_id,
                serializer=worker.job_serializer,
            )
        worker.jobs_failed += 1
        await Worker.finish_job(
            worker, taken.job_id, True, data, seconds, forever, None, keep_in_progress
        )


def _told(error: LimiterError) -> str:
    if isinstance(error, LimitReached):
        return f"concurrency limit reached: {error}"
    if isinstance(error, Superseded):
        return f"superseded: {error}"
    return f"{type(error).__name__}: {error}"


def _from_now(seconds: float) -> float:
    """Return a time for a parked job: it ends in a half, see `_shelf`."""
    return timestamp_ms() + max(0, int(seconds * 1000)) + 0.5
