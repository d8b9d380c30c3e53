"""`LimitedWorker`: arq's worker, with a gate before each job that is under limits.

arq's own loop stays as it is: polling, hooks, timeouts, retries, results. What changes: jobs are
fetched as many at once as may be started, they are admitted before a try is counted, and a job that
may run next is started when its slot is free, not at the next poll.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Sequence
from typing import Any, Literal, cast

from arq.connections import create_pool
from arq.worker import Worker

from limiter_arq._decorator import check_other_worker, limits_of
from limiter_arq._job_queue import ParkedJob
from limiter_arq._parts import LimiterSettings, Parts, open_parts
from limiter_core.jobs import CLAIM, BackgroundTasks
from limiter_core.store import Store

logger = logging.getLogger("arq.limiter")

_CLOSING_PATIENCE = 5.0
"""Seconds that closing waits until free slots are handed on."""


class LimitedWorker(Worker):
    """arq's worker for functions under `@limited`; other functions run in it as before.

    Args:
        functions: as arq's worker takes them.
        limiter: where slots and tickets are kept: a URL or a store; None for the worker's own
            Redis. All processes that share a limit name the same.
        on_store_error: while the store cannot be reached, "raise" keeps jobs in the queue until it
            can; "admit" runs them without a slot.
        claim: seconds that a job has to start once a slot is kept for it. More than a poll takes.
        wait_extends_expiry: whether a job's time to live (a day, or its `_expires`) stands still
            while it waits. By default it runs on, and ends the wait as "job expired".
        settings: all other settings of arq's worker.

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
        self._settings = LimiterSettings(limiter, on_store_error, claim, wait_extends_expiry)
        self._has_limits = any(limits_of(each.coroutine) for each in self.functions.values())
        self._background = BackgroundTasks(logger)
        self._parts: Parts | None = None
        self._is_polling = False
        self._closing = False

    async def main(self) -> None:
        """Run arq's loop, and beside it what dispatches granted jobs."""
        if not self._has_limits:
            await super().main()
            return
        if not self._is_connected():  # as arq does
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        if self._parts is None:
            self._parts = await open_parts(self, self._settings, self._background, super().run_job)
        parts = self._parts
        loops = parts.start_background()
        parts.fetcher.is_open = True
        parts.gate.arrive()
        try:
            await super().main()
        finally:
            self._stop_fetching(parts)
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    def handle_sig(self, signum: signal.Signals) -> None:
        """Shut down as arq does, and start nothing from now on."""
        if not self._closing:
            self._stop_fetching(self._parts)  # or a job would start in the slot of a cancelled one
            super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Let bodies end as arq does; waiting jobs wait for other workers from now on."""
        if self._parts is not None:
            self._background.begin(self._parts.gate.leave())
        super().handle_sig_wait_for_completion(signum)

    def _stop_fetching(self, parts: Parts | None) -> None:
        if parts is not None:
            parts.fetcher.is_open = False
            self._background.begin(parts.gate.leave())

    async def close(self) -> None:
        """Close as arq does, once free slots are handed on."""
        parts = self._parts
        try:
            if parts is not None and self._is_connected():
                if not self._handle_signals:
                    self.handle_sig(signal.SIGUSR1)
                self._closing = True
                try:
                    if self.tasks:
                        await asyncio.wait(self.tasks.values())  # arq raises what they raised
                finally:
                    await self._background.done(_CLOSING_PATIENCE)
                    self._parts = None
                    await parts.aclose()
            await super().close()
        finally:
            self._closing = False

    def _is_connected(self) -> bool:
        pool: Any = self._pool
        return pool is not None

    # -- what arq's loop calls ---------------------------------------------------------------------

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Fetch jobs that are due, as many as may be started, and start them."""
        if self._parts is None:
            await super().start_jobs(job_ids)
        else:
            await self._parts.fetcher.start_due(job_ids)

    async def _poll_iteration(self) -> None:
        parts = self._parts
        if parts is None:
            await super()._poll_iteration()
            return
        if not parts.fetcher.free_slots():
            parts.fetcher.has_more = True  # arq looks for none then
        self._is_polling = True
        try:
            await super()._poll_iteration()
        finally:
            self._is_polling = False
        if self.burst and self.max_burst_jobs >= 0 and parts.runner.admitting:
            await parts.runner.none_admitting.wait()  # arq counts next what was started

    def _jobs_started(self) -> int:
        # arq asks twice in a burst of so many jobs: how many more to start, where those that are
        # being admitted may still run; and whether it was enough, where only bodies count.
        if self._is_polling or self._parts is None:
            running = sum(not task.done() for task in self.tasks.values())
        else:
            running = self._parts.runner.admitted - self._parts.runner.ending
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + running

    async def _cancel_aborted_jobs(self) -> None:
        await super()._cancel_aborted_jobs()
        # `Job.abort` makes a deferred job due before it requests the abort: in between it may have
        # been parked again.
        if self._parts is not None:
            for job_id in await self._parts.queue.parked_to_abort():
                self._parts.dispatcher.dispatch(ParkedJob(self.queue_name, job_id, 1))

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job that was fetched, if it is admitted."""
        if self._parts is None:
            await super().run_job(job_id, score)
        else:
            await self._parts.runner.run(await self._parts.queue.read(job_id, score))

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
        """Record how a run ended, as arq does, once its slots are free for others."""
        if self._parts is not None:
            incr_score = await self._parts.runner.before_result(job_id, incr_score, is_final=finish)
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
        """Record that a job could not be run, as arq does."""
        if self._parts is not None:
            self._parts.runner.finishing(job_id)
        await super().finish_failed_job(job_id, result_data)


def _check_new_workers() -> None:
    """Have arq's worker refuse functions under limits, unless it is a `LimitedWorker`."""
    init: Any = cast(Any, Worker).__init__

    @functools.wraps(init)
    def checked_init(worker: Any, *args: Any, **settings: Any) -> None:
        init(worker, *args, **settings)
        if not isinstance(worker, LimitedWorker):
            check_other_worker(worker)

    cast(Any, Worker).__init__ = checked_init


_check_new_workers()
