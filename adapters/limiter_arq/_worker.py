"""`LimitedWorker`: arq's worker, with a gate before each job that is under limits.

arq's own loop goes on as it is: polling, hooks, timeouts, retries, results. What changes: jobs are
taken as many at once as there is room, pass the gate before a try is counted, and a job that may
run next is started when its slot comes free, not at the next poll.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any, Literal

from arq.connections import create_pool
from arq.worker import Worker

from limiter_arq._arq import refuse_other_workers
from limiter_arq._decorator import Run, current, limits_of
from limiter_arq._job_queue import Parked, Shelf, Taken
from limiter_arq._log import logger
from limiter_arq._parts import GateSettings, Parts, open_parts
from limiter_core.jobs import CLAIM, Errands
from limiter_core.requests import Loss
from limiter_core.store import Store

_RESULT_WAITS = 0.2
"""Seconds that a result waits for the slots to be given back, when the store is slow."""
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
        self._settings = GateSettings(limiter, on_store_error, claim, wait_extends_expiry)
        self._guards = any(limits_of(each.coroutine) for each in self.functions.values())
        self._errands = Errands(logger)
        self._parts: Parts | None = None
        self._closing = False
        self._at_gate = 0
        self._none_at_gate = asyncio.Event()
        self._admitted = 0
        self._starting = False
        self._ending = 0

    # -- from start to end ------------------------------------------------------------------------

    async def main(self) -> None:
        """Run arq's loop, and beside it what wakes jobs."""
        if not self._guards:
            await super().main()
            return
        if not self._has_pool():  # as arq does
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        if self._parts is None:
            self._parts = await open_parts(
                self,
                self._settings,
                self._errands,
                run=self._run,
                lost=self._lost,
                ending=lambda: self._ending,
            )
        parts = self._parts
        background = parts.wakes.background(parts.gate)
        parts.intake.open = True
        parts.gate.arrive()
        try:
            await super().main()
        finally:
            parts.intake.open = False
            self._errands.begin(parts.gate.leave())
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    def handle_sig(self, signum: signal.Signals) -> None:
        """Shut down as arq does, and start nothing from now on."""
        if self._closing:
            return
        if self._parts is not None:
            self._parts.intake.open = False  # or what a cancelled job frees would start here
            self._errands.begin(self._parts.gate.leave())
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Let bodies end as arq does; jobs that wait do so for other workers from now on."""
        if self._parts is not None:
            self._errands.begin(self._parts.gate.leave())
        super().handle_sig_wait_for_completion(signum)

    async def close(self) -> None:
        """Close as arq does, once what came free is handed on."""
        parts = self._parts
        try:
            if parts is not None and self._has_pool():
                if not self._handle_signals:
                    self.handle_sig(signal.SIGUSR1)
                self._closing = True
                try:
                    if self.tasks:
                        await asyncio.wait(self.tasks.values())  # arq raises what they raised
                finally:
                    await self._errands.done(_PATIENCE)
                    self._parts = None
                    await parts.aclose()
            await super().close()
        finally:
            self._closing = False

    def _has_pool(self) -> bool:
        pool: Any = self._pool
        return pool is not None

    # -- taking jobs ------------------------------------------------------------------------------

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take jobs that are due, as far as there is room, and start them."""
        if self._parts is None:
            await super().start_jobs(job_ids)
        else:
            await self._parts.intake.start_due(job_ids)

    async def _poll_iteration(self) -> None:
        intake = None if self._parts is None else self._parts.intake
        if intake is not None and not intake.room():
            intake.full = True  # arq looks for none then
        self._starting = True
        try:
            await super()._poll_iteration()
        finally:
            self._starting = False
        if self.burst and self.max_burst_jobs >= 0 and self._at_gate:
            await self._none_at_gate.wait()  # arq counts next what was started

    def _jobs_started(self) -> int:
        # arq asks twice in a burst of so many jobs: how many more to start, where those at the gate
        # may still come in; and whether it was enough, where only bodies count.
        if self._starting:
            running = sum(not task.done() for task in self.tasks.values())
        else:
            running = self._admitted - self._ending
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + running

    # -- running one job --------------------------------------------------------------------------

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job that was taken, if it is admitted."""
        if self._parts is None:
            await super().run_job(job_id, score)
        else:
            await self._run(await self._parts.shelf.read(job_id, score))

    async def _run(self, taken: Taken) -> None:
        run = Run(taken.job_id, int(taken.score))
        current.set(run)  # in the context of this job's task, which its body inherits
        if not await self._pass_gate(taken, run):
            return
        run.on_over = self._give_back
        self._admitted += 1
        try:
            await super().run_job(run.job_id, run.score)
        except asyncio.CancelledError:  # before or after the body, by a signal
            if not run.finishing and self._parts is not None:
                await self._errands.finish(self._abandon(run, self._parts.shelf))
        finally:
            run.end_body()
            self._ending -= 1
            self._admitted -= 1
            self.aborting_tasks.discard(run.job_id)  # or a later cancellation counted as an abort

    async def _abandon(self, run: Run, shelf: Shelf) -> None:
        """Put a job back that arq forgets: whoever takes it must find its slots free."""
        run.end_body()
        if run.given_back is not None:
            await asyncio.wait([run.given_back])
        await shelf.let_go(run.job_id, run.score, None)

    def _give_back(self, run: Run) -> None:
        self._ending += 1
        if run.lease is not None:
            run.given_back = self._errands.begin(run.lease.release())

    async def _pass_gate(self, taken: Taken, run: Run) -> bool:
        if self._parts is None:
            return True
        self._at_gate += 1
        self._none_at_gate.clear()
        try:
            return await self._parts.admission.admit(taken, run)
        except asyncio.CancelledError:
            return False  # it was put back
        finally:
            self._at_gate -= 1
            if not self._at_gate:
                self._none_at_gate.set()

    async def finish_job(  # noqa: PLR0917  (arq's)
        self,
        job_id: str,
        finish: bool,
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """Note how a job ended, as arq does, once its slots are free for others."""
        run = self._note_finishing(job_id)
        if run is not None and run.given_back is not None:
            # Whoever sees the result finds the slot free; and starting the next goes first. But if
            # it comes again, its next try must not meet the slots of this one, however long it is.
            await asyncio.wait([run.given_back], timeout=_RESULT_WAITS if finish else None)
        if run is not None and not finish:
            incr_score = await self._true_increment(run, incr_score)
        await super().finish_job(
            job_id,
            finish,
            result_data,
            result_timeout_s,
            keep_result_forever,
            incr_score,
            keep_in_progress,
        )

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Note that a job could not be run, as arq does."""
        self._note_finishing(job_id)
        await super().finish_failed_job(job_id, result_data)

    def _note_finishing(self, job_id: str) -> Run | None:
        run = current.get()
        if run is None or run.job_id != job_id:
            return None
        run.end_body()  # of a body that never began
        run.finishing = True
        task = asyncio.current_task()
        if task is not None and task is not self.tasks.get(job_id):
            self._errands.add(task)  # arq shields it, and forgets it when a signal comes
        return run

    async def _true_increment(self, run: Run, increment: int | None) -> int | None:
        """Return what brings a job where arq wants it: a second delivery may have moved it."""
        score = None if self._parts is None else await self._parts.shelf.score(run.job_id)
        if score is None or score == run.score:
            return increment
        return (increment or 0) + int(run.score - score)

    # -- stopping one job -------------------------------------------------------------------------

    def _lost(self, run: Run, loss: Loss) -> None:
        """Stop the body of a run whose lease is lost."""
        if run.over:
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
        parts = self._parts
        if parts is None:
            return
        # `Job.abort` makes a deferred job due before it says that it is to be aborted: in between
        # it may have been parked again.
        for job_id in await parts.shelf.parked_to_abort():
            parts.wakes.wake(Parked(self.queue_name, job_id, 1), "")


refuse_other_workers(LimitedWorker)
