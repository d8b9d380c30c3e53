"""What a lost slot does to a job: preempted, evicted or lost; short or long. All are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import JobExecutionFailed, func

from limiter_arq import LIMIT_BY, ConcurrencyLimit, ConflictResolution, limited
from limiter_core.requests import Loss
from limiter_redis import RedisStore
from tests.redis._tools import until

from ._tools import until_idle

Start = Callable[..., Awaitable[Any]]

SHORT_AND_LONG = pytest.mark.parametrize("seconds", [0.5, 30.0])


class Bodies:
    """The body of a job, and what it noted."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.leases: list[Any] = []

    def of(self, **options: Any) -> Any:
        @limited(ConcurrencyLimit(LIMIT_BY.constant("lost"), 1, **options))
        async def work(ctx: dict[Any, Any], name: str, seconds: float) -> tuple[str, int]:
            self.begun.append(name)
            self.leases.append(ctx["lease"])
            await asyncio.sleep(seconds if ctx["job_try"] == 1 else 0.0)
            self.ended.append(name)
            return name, ctx["job_try"]

        return func(work, name="work")


async def enqueue(pool: ArqRedis, name: str, seconds: float) -> Job:
    job = await pool.enqueue_job("work", name, seconds)
    assert job is not None
    return job


async def outcome(job: Job) -> Any:
    try:
        return await job.result(timeout=20, poll_delay=0.02)
    except BaseException as error:
        return error


@SHORT_AND_LONG
async def test_a_newer_job_has_the_older_cancelled_at_once(
    pool: ArqRedis, start_worker: Start, store: RedisStore, seconds: float
) -> None:
    bodies = Bodies()
    await start_worker([bodies.of(on_conflict=ConflictResolution.CANCEL_RUNNING)])
    older = await enqueue(pool, "older", seconds)
    await until(lambda: bodies.begun == ["older"], "it runs")
    newer = await enqueue(pool, "newer", 0.0)
    assert isinstance(await outcome(older), asyncio.CancelledError)
    assert await outcome(newer) == ("newer", 1)
    assert (bodies.begun, bodies.ended) == (["older", "newer"], ["newer"])
    await until_idle(store)


@SHORT_AND_LONG
async def test_an_evicted_job_is_cancelled_and_fails(
    pool: ArqRedis, start_worker: Start, store: RedisStore, seconds: float
) -> None:
    bodies = Bodies()
    await start_worker([bodies.of()])
    job = await enqueue(pool, "evicted", seconds)
    await until(lambda: bodies.leases, "it runs")
    assert await store.async_face().evict(bodies.leases[0].id)
    assert isinstance(await outcome(job), JobExecutionFailed)
    assert (bodies.begun, bodies.ended) == (["evicted"], [])
    await until_idle(store)


@SHORT_AND_LONG
async def test_a_job_whose_lease_is_lost_runs_again(
    pool: ArqRedis, start_worker: Start, store: RedisStore, seconds: float
) -> None:
    bodies = Bodies()
    await start_worker([bodies.of()])
    job = await enqueue(pool, "kept", seconds)
    await until(lambda: bodies.leases, "it runs")
    bodies.leases[0]._call.lease_lost(Loss.EXPIRED)
    assert await outcome(job) == ("kept", 2)
    assert (bodies.begun, bodies.ended) == (["kept", "kept"], ["kept"])
    await until_idle(store)
