"""`LimitedWorker`: arq's worker, with a gate before each job that is under limits.

arq's own loop goes on as it is: polling, hooks, timeouts, retries, results. What changes: jobs are
taken as many at once as there is room, pass the gate before a try is counted, and a job that may
run next is started when its slot comes free, not at the next poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from importlib import import_module
from signal import SIGUSR1, Signals
from typing import Any, Literal

from arq.connections import create_pool
from arq.worker import Worker
from redis.exceptions import RedisError

from limiter_arq._admission import Admission
from limiter_arq._errands import Errands, logger
from limiter_arq._marker import Run, current, limits_of
from limiter_arq._shelf import Absent, Parked, Shelf, Taken
from limiter_arq._wakes import Wakes
from limiter_core import ConfigurationError
from limiter_core.jobs import CLAIM, JobGate
from limiter_core.requests import Loss
from limiter_core.store import Store

_PATIENCE = 5.0
"""Seconds that closing waits until what came free is handed on."""


class LimitedWorker(Worker):
    """arq's worker for functions under `@limited`; other functions run in it as ever.

    Args:
        functions: as arq's worker takes them.
        limiter: where slots and tickets are kept: a URL or a store; None for the worker's own
            Redis. All processes that share a limit name the same.
        on_store_error: while the store cannot be reached, "raise" keeps jobs in the queue until it
            can; "admit" runs them without a slot.
        claim: seconds that a job has to start once a slot is kept for it. More than a poll takes.
        wait_extends_expiry: whether a job's time to live (a day, or its `_expires`) stands still
            while it waits. By default it goes on, and ends the wait as "job expired".
        settings: all else that arq's worker takes.

    Raises:
        ConfigurationError: when it starts: no installed store knows the URL; or there is none, and
            arq's Redis is found by Sentinel.
    """

    def __init__(
        self,
        functions: Sequence[Any] = (),
        *,
        limiter: str | Store | None = None,
        on_store_error: Literal["raise", "admit"] = "raise",
        claim: float = CLAIM,
        wait_extends_expiry: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(functions, **settings)
        self._limiter = limiter
        self._on_store_error: Literal["raise", "admit"] = on_store_error
        self._claim = claim
        self._wait_extends_expiry = wait_extends_expiry
        self._guards = any(limits_of(each.coroutine) for each in self.functions.values())
        self._errands = Errands()
        self._shelf: Shelf | None = None
        self._wakes: Wakes | None = None
        self._admission: Admission | None = None
        self._default_store: Any = None
        self._open = False
        """Whether arq's loop runs, so that jobs may be started beside it."""
        self._closing = False
        self._full = False
        """Whether jobs may be due that were not started for want of room."""
        self._filling = False
        self._at_gate = 0
        self._none_at_gate = asyncio.Event()
        self._ending = 0

    # -- from start to end ------------------------------------------------------------------------

    async def main(self) -> None:
        """Run arq's loop, and beside it what wakes jobs."""
        if not self._guards:
            await super().main()
            return
        if self._pool is None:  # as arq does
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        wakes = self._wakes or await self._open_gate()
        background = wakes.background()
        self._open = True
        try:
            await super().main()
        finally:
            self._open = False
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    async def _open_gate(self) -> Wakes:
        shelf = self._shelf = Shelf(self.pool, self.queue_name)
        place = await shelf.place()
        wakes = Wakes(
            self.pool,
            place,
            self.queue_name,
            shelf,
            self._errands,
            start=self._start,
            room=self._room,
            soon=lambda: self._ending,
        )
        store: str | Store = self._limiter or self._store_of_pool()
        wakes.gate = gate = JobGate(
            store,
            f"arq:{place}",
            wakes.hear,
            claim=self._claim,
            on_store_error=self._on_store_error,
        )
        self._admission = Admission(
            self,
            gate,
            place,
            shelf,
            self._errands,
            lost=self._lost,
            handed_over=wakes.wake,
            wait_extends_expiry=self._wait_extends_expiry,
        )
        self._wakes = wakes
        return wakes

    def _store_of_pool(self) -> Store:
        pool: Any = self.pool
        if "Sentinel" in type(pool.connection_pool).__name__:
            raise ConfigurationError(
                "arq finds its Redis by Sentinel, which the Redis store does not: "
                "give the worker a store, limiter=..."
            )
        store: Store = import_module("limiter_redis").RedisStore(client=pool)
        self._default_store = store
        return store

    def handle_sig(self, signum: Signals) -> None:
        """Shut down as arq does, and start nothing from now on."""
        if self._closing:
            return
        self.allow_pick_jobs = False  # or what a cancelled job frees would start here
        super().handle_sig(signum)

    async def close(self) -> None:
        """Close as arq does, once what came free is handed on."""
        picked = self.allow_pick_jobs
        if self._pool is not None and self._wakes is not None:
            if not self._handle_signals:
                self.handle_sig(SIGUSR1)
            self._closing = True
            try:
                await asyncio.gather(*self.tasks.values())
            finally:
                await self._close_gate()
        try:
            await super().close()
        finally:
            self._closing = False
            self.allow_pick_jobs = picked  # for a worker that is run again

    async def _close_gate(self) -> None:
        await self._errands.done(_PATIENCE)
        wakes, store = self._wakes, self._default_store
        self._wakes = self._admission = self._default_store = None
        if wakes is not None and wakes.gate is not None:
            await wakes.gate.aclose()
        if store is not None:
            await store.async_face().aclose()

    # -- taking jobs ------------------------------------------------------------------------------

    def _room(self) -> int:
        """Return how many jobs could be started now."""
        if not self._open or not self.allow_pick_jobs:
            return 0
        room = self.max_jobs - self.job_counter
        if self.burst and self.max_burst_jobs >= 0:
            ended = self.jobs_complete + self.jobs_retried + self.jobs_failed
            room = min(room, self.max_burst_jobs - ended - self.job_counter)
        return room

    def _jobs_started(self) -> int:
        running = sum(not task.done() for task in self.tasks.values())
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + running

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take jobs that are due, as far as there is room, and start them."""
        if self._admission is None:
            await super().start_jobs(job_ids)
            return
        running = {job_id for job_id, task in self.tasks.items() if not task.done()}
        due = [job_id for each in job_ids if (job_id := each.decode()) not in running]
        some = False
        while due and (room := self._room()) > 0:
            found = await self._start([(job_id, None) for job_id in due[:room]])
            some = some or any(isinstance(each, Taken) for each in found)
            due = due[room:]
        self._full = bool(due) or (some and len(job_ids) >= self.queue_read_limit)
        self._fill()

    async def _start(self, jobs: Sequence[tuple[str, int | None]]) -> list[Taken | Absent]:
        """Take jobs and start them; those for which there is no room are not tried."""
        shelf, room = self._shelf, max(0, self._room())
        found: list[Taken | Absent] = []
        if shelf is not None and jobs[:room]:
            self.job_counter += len(jobs[:room])  # at once: others start jobs, too
            found = await self._errands.finish(self._take(shelf, jobs[:room]))
        return [*found, *(Absent.NO_ROOM for _ in jobs[len(found) :])]

    async def _take(
        self, shelf: Shelf, jobs: Sequence[tuple[str, int | None]]
    ) -> list[Taken | Absent]:
        """Take jobs for which there is room in the counter; what was taken is never forgotten."""
        begun = 0
        for _ in jobs:
            await self.sem.acquire()  # never waits: it allows one more than the counter does
        try:
            found = await shelf.take(jobs, self.in_progress_timeout_s)
            for each in found:
                if isinstance(each, Taken):
                    if self._open and self.allow_pick_jobs:
                        self._begin(each)
                        begun += 1
                    else:  # a signal came in between
                        await shelf.let_go(each.job_id, each.score, None)
            return found
        finally:
            for _ in jobs[begun:]:
                self._release_sem_dec_counter_on_complete()

    def _begin(self, taken: Taken) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is None:  # else for arq to see
                if self.tasks.get(taken.job_id) is task:
                    del self.tasks[taken.job_id]
            self._release_sem_dec_counter_on_complete()
            if self._wakes is not None:
                self._wakes.slot_freed()
            self._fill()

        task = self.loop.create_task(self._run(taken))
        self.tasks[taken.job_id] = task
        task.add_done_callback(ended)

    def _fill(self) -> None:
        """Start what is due and found no room before: arq itself does so at its next poll."""
        if self._full and not self._filling and self._room() > 0:
            self._filling = True
            self._errands.begin(self._fill_up())

    async def _fill_up(self) -> None:
        try:
            while self._full and self._shelf is not None and self._room() > 0:
                await self.start_jobs(await self._shelf.due(self.queue_read_limit))
        except (RedisError, OSError):
            logger.debug("left to the next poll", exc_info=True)
        finally:
            self._filling = False

    async def _poll_iteration(self) -> None:
        self._full = self._full or self._room() <= 0
        await super()._poll_iteration()
        if self.burst and self.max_burst_jobs >= 0 and self._at_gate:
            await self._none_at_gate.wait()  # arq counts next what was started

    # -- running one job --------------------------------------------------------------------------

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job that was taken, if it is admitted."""
        if self._shelf is None:
            await super().run_job(job_id, score)
        else:
            await self._run(await self._shelf.read(job_id, score))

    async def _run(self, taken: Taken) -> None:
        run = Run(taken.job_id, int(taken.score))
        current.set(run)  # in the context of this job's task, which its body inherits
        if not await self._pass_gate(taken, run):
            return
        try:
            await super().run_job(run.job_id, run.score)
        except asyncio.CancelledError:  # before or after the body, by a signal
            if not run.finishing and self._shelf is not None:
                await self._errands.finish(self._shelf.let_go(run.job_id, run.score, None))
        finally:
            if run.finishing:
                self._ending -= 1
            self.aborting_tasks.discard(run.job_id)  # or a later cancellation counted as an abort
            await self._errands.finish(run.release())

    async def _pass_gate(self, taken: Taken, run: Run) -> bool:
        if self._admission is None:
            return True
        self._at_gate += 1
        self._none_at_gate.clear()
        try:
            return await self._admission.admit(taken, run)
        except asyncio.CancelledError:
            return False  # it was put back
        finally:
            self._at_gate -= 1
            if not self._at_gate:
                self._none_at_gate.set()

    async def finish_job(
        self,
        job_id: str,
        finish: bool,
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """Note how a job ended, and give its slots back."""
        run = self._note_ending(job_id)
        if run is not None and not finish:
            # It comes again: its next try must not meet the slots of this one.
            await run.release()
            incr_score = await self._true_increment(run, incr_score)
        ending = super().finish_job(
            job_id,
            finish,
            result_data,
            result_timeout_s,
            keep_result_forever,
            incr_score,
            keep_in_progress,
        )
        await self._release_beside(run, ending)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Note that a job could not be run, and give its slots back."""
        run = self._note_ending(job_id)
        await self._release_beside(run, super().finish_failed_job(job_id, result_data))

    def _note_ending(self, job_id: str) -> Run | None:
        run = current.get()
        if run is None or run.job_id != job_id:
            return None
        if not run.finishing:
            run.finishing = True
            self._ending += 1
        task = asyncio.current_task()
        if task is not None and task is not self.tasks.get(job_id):
            self._errands.add(task)  # arq shields it, and forgets it when a signal comes
        return run

    async def _release_beside(self, run: Run | None, ending: Coroutine[Any, Any, None]) -> None:
        if run is None or run.lease is None:
            await ending
        else:
            await asyncio.gather(self._errands.begin(run.release()), ending)

    async def _true_increment(self, run: Run, increment: int | None) -> int | None:
        """Return what brings a job where arq wants it: a second delivery may have moved it."""
        score = None if self._shelf is None else await self._shelf.score(run.job_id)
        if score is None or score == run.score:
            return increment
        return (increment or 0) + int(run.score - score)

    # -- stopping one job -------------------------------------------------------------------------

    def _lost(self, run: Run, loss: Loss) -> None:
        """Stop the body of a run whose lease is lost."""
        if run.finishing:
            return
        run.loss = loss
        if loss is Loss.PREEMPTED:
            self.aborting_tasks.add(run.job_id)  # arq then notes it as aborted, and tries no more
        logger.info("%s is stopped: %s", run.job_id, loss.value)
        task = self.job_tasks.get(run.job_id)
        if task is not None:
            task.cancel()

    async def _cancel_aborted_jobs(self) -> None:
        await super()._cancel_aborted_jobs()
        if self._shelf is None or self._wakes is None:
            return
        # `Job.abort` makes a deferred job due before it says that it is to be aborted: in between
        # it may have been parked again.
        for job_id in await self._shelf.parked_to_abort():
            self._wakes.wake(Parked(self.queue_name, job_id, 1), "")
