"""The parts of a `LimitedWorker` from its start until it closes: made here, and connected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal, NamedTuple

from arq.worker import Worker
from redis.exceptions import RedisError

from limiter_arq._admission import Admission
from limiter_arq._dispatcher import Dispatcher
from limiter_arq._job_fetcher import JobFetcher
from limiter_arq._job_queue import JobQueue
from limiter_arq._job_runner import JobRunner
from limiter_arq._worker_jobs import WorkerJobs
from limiter_core import ConfigurationError
from limiter_core.jobs import BackgroundTasks, JobGate
from limiter_core.store import Store

logger = logging.getLogger("arq.limiter")

_RESTART_AFTER = 1.0
_EXTEND_REDIS_ID_EVERY = 3600.0


class LimiterSettings(NamedTuple):
    """The settings of `LimitedWorker` that arq's worker does not have."""

    limiter: str | Store | None
    on_store_error: Literal["raise", "admit"]
    claim: float
    wait_extends_expiry: bool


class Parts(NamedTuple):
    """The parts of a worker that is connected to its Redis."""

    queue: JobQueue
    fetcher: JobFetcher
    dispatcher: Dispatcher
    runner: JobRunner
    gate: JobGate
    redis_id: str

    def start_background(self) -> list[asyncio.Task[None]]:
        """Start the loops that run as long as the worker."""

        async def extend_redis_id() -> None:
            await asyncio.sleep(_EXTEND_REDIS_ID_EVERY)
            with suppress(RedisError, OSError):
                await self.queue.share_redis_id(self.redis_id)

        loops = self.gate.keep_sweeping, self.dispatcher.subscribe, extend_redis_id
        return [asyncio.create_task(_repeat(each)) for each in loops]

    async def aclose(self) -> None:
        """Close the gate, its store if it is the worker's own, and the connection of the queue."""
        await self.gate.aclose()
        await self.queue.aclose()


async def open_parts(
    worker: Worker,
    settings: LimiterSettings,
    background: BackgroundTasks,
    run_in_arq: Callable[[str, int], Awaitable[None]],
) -> Parts:
    """Make the parts of a worker that is connected to its Redis.

    Each part is given what it uses; what is made later is given as a function that looks it up.

    Raises:
        ConfigurationError: see `LimitedWorker`.
    """
    queue = JobQueue(worker.pool, worker.queue_name)
    redis_id = await queue.share_redis_id()
    store = settings.limiter
    admits = settings.on_store_error == "admit"
    jobs = WorkerJobs(worker)
    runner = JobRunner(
        jobs=jobs,
        queue=queue,
        background=background,
        admit=lambda job, run: admission.admit(job, run),  # noqa: PLW0108  (it is made below)
        run_in_arq=run_in_arq,
    )
    fetcher = JobFetcher(
        jobs=jobs,
        queue=queue,
        background=background,
        run=runner.run,
        on_job_left=lambda: dispatcher.dispatch_kept(),  # noqa: PLW0108  (it is made below)
        read_limit=worker.queue_read_limit,
        in_progress=worker.in_progress_timeout_s,
    )
    dispatcher = Dispatcher(
        queue=queue,
        jobs=jobs,
        fetcher=fetcher,
        background=background,
        drop=lambda ticket: gate.drop(ticket),  # noqa: PLW0108  (it is made below)
        count_ending=lambda: runner.ending,
        # Where jobs run without a slot, one may run while its ticket is granted.
        stale_after=None if admits else settings.claim / 2,
    )
    gate = JobGate(
        _store_of(worker.pool) if store is None else store,
        # A worker can wake the jobs of all queues of this Redis, by whatever address it knows it;
        # but they are served only while a worker of their own queue is there.
        f"arq:{redis_id}:{worker.queue_name}",
        dispatcher.on_notice,
        family=f"arq:{redis_id}:",
        claim=settings.claim,
        on_store_error=settings.on_store_error,
        owns_store=store is None,
    )
    admission = Admission(
        gate=gate,
        queue=queue,
        redis_id=redis_id,
        background=background,
        functions=worker.functions,
        deserializer=worker.job_deserializer,
        allows_aborts=worker.allow_abort_jobs,
        expires_extra=worker.expires_extra_ms if settings.wait_extends_expiry else None,
        on_lost=runner.on_lost,
        dispatch=dispatcher.dispatch,
        record_refusal=jobs.record_refusal,
    )
    return Parts(queue, fetcher, dispatcher, runner, gate, redis_id)


def _store_of(pool: Any) -> Any:
    if "Sentinel" in type(pool.connection_pool).__name__:
        raise ConfigurationError(
            "arq finds its Redis by Sentinel, and the Redis store cannot use that connection: "
            "give the worker a store, limiter=..."
        )
    return import_module("limiter_redis").RedisStore(client=pool)


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s is started again", getattr(work, "__name__", work))
        await asyncio.sleep(_RESTART_AFTER)
