"""A job that waits while its workers are replaced by those of another deployment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import JobExecutionFailed, func

from limiter_arq import LIMIT_BY, ConcurrencyLimit, limited
from limiter_arq._job_queue import FetchedJob, JobQueue
from limiter_core import Limiter
from limiter_redis import RedisStore
from tests.arq._local_worker import LocalWorker
from tests.redis._servers import Server
from tests.redis._tools import until, until_true

from ._tools import ONE, is_waiting, until_idle

CLAIM = 30.0
"""Seconds for which a slot would be kept for a job that does not take it."""

NEW = ConcurrencyLimit(LIMIT_BY.constant("new"), 1)

Start = Callable[..., Awaitable[Any]]
Wait = Callable[..., Awaitable[tuple[Job, Job]]]


async def free(ctx: dict[Any, Any]) -> str:
    return "ended"


# arq asks for what `async def` makes
FREE: Any = free
ON_ONE: Any = limited(ONE)(free)
ON_NEW: Any = limited(NEW)(free)


def functions(**given: Any) -> list[Any]:
    return [func(function, name=name) for name, function in given.items()]


@pytest.fixture
async def limiter(store: RedisStore) -> AsyncIterator[Limiter]:
    """The limits of the jobs, as another program uses them."""
    async with Limiter(store) as limiter:
        yield limiter


@pytest.fixture
def wait_in_old_workers(server: Server, pool: ArqRedis, store: RedisStore) -> Wait:
    """Have two jobs wait, that of the function that changes in front; then the worker ends."""

    async def wait(claim: float = CLAIM) -> tuple[Job, Job]:
        old = functions(stays=ON_ONE, changes=ON_ONE)
        async with LocalWorker(server.url, old, {"claim": claim}):
            changed = await pool.enqueue_job("changes")
            await until_true(lambda: is_waiting(store), "it waits")
            stayed = await pool.enqueue_job("stays")
            await until_true(lambda: is_waiting(store, 2), "both wait")
        assert changed is not None
        assert stayed is not None
        return changed, stayed

    return wait


@pytest.mark.parametrize(
    "changes",
    [{}, {"changes": FREE}, {"changes": ON_NEW}],
    ids=["gone", "without a limit", "with another limit"],
)
async def test_its_slot_goes_to_the_next_at_once(
    wait_in_old_workers: Wait,
    start_worker: Start,
    store: RedisStore,
    limiter: Limiter,
    changes: dict[str, Any],
) -> None:
    async with limiter.hold(ONE):
        changed, stayed = await wait_in_old_workers()
        await start_worker(functions(stays=ON_ONE, **changes), claim=CLAIM)
    async with asyncio.timeout(CLAIM / 2):
        assert await outcome(stayed) == "ended"
        assert await outcome(changed) == ("ended" if changes else JobExecutionFailed)
    await until_idle(store)


async def test_a_job_that_comes_back_by_itself_leaves_the_line_of_its_old_limit(
    wait_in_old_workers: Wait,
    pool: ArqRedis,
    start_worker: Start,
    store: RedisStore,
    limiter: Limiter,
) -> None:
    async with limiter.hold(NEW):
        async with limiter.hold(ONE):
            changed, stayed = await wait_in_old_workers()
            await pool.zadd("arq:queue", {changed.job_id: 0}, xx=True)  # as if it was parked long
            await start_worker(functions(stays=ON_ONE, changes=ON_NEW), claim=CLAIM)

            async def waits_again() -> bool:
                return (await limiter.inspect(NEW)).waiting == 1

            await until_true(waits_again, "it waits for its new limit")
            assert (await limiter.inspect(ONE)).waiting == 1
        async with asyncio.timeout(CLAIM / 2):
            assert await outcome(stayed) == "ended"
        assert (await limiter.inspect(NEW)).waiting == 1
    async with asyncio.timeout(CLAIM / 2):
        assert await outcome(changed) == "ended"
    await until_idle(store)


async def test_a_worker_that_fetched_it_is_killed(
    pool: ArqRedis,
    wait_in_old_workers: Wait,
    start_worker: Start,
    store: RedisStore,
    limiter: Limiter,
) -> None:
    """Before it left the line, where it has no limit any more. The next worker has it leave."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def long(_: dict[Any, Any]) -> str:
        begun.set()
        await may_end.wait()
        return "ended"

    queue = JobQueue(pool, "arq:queue")
    async with limiter.hold(ONE):
        changed, stayed = await wait_in_old_workers(4.0)
        # All that the killed worker has done.
        (fetched,) = await queue.fetch([(changed.job_id, 0)], 310.0)
        assert isinstance(fetched, FetchedJob)
        await start_worker(functions(stays=ON_ONE, changes=long), claim=4.0)
    await asyncio.wait_for(begun.wait(), CLAIM)
    assert await outcome(stayed) == "ended"
    await until_idle(store)
    may_end.set()
    assert await outcome(changed) == "ended"
    await queue.aclose()


async def test_its_ticket_is_not_kept(
    server: Server, pool: ArqRedis, start_worker: Start, limiter: Limiter
) -> None:
    def is_kept() -> bool:
        return bool(server.admin.keys("arq:limiter:ticket:*"))

    await start_worker(functions(stays=ON_ONE))
    async with limiter.hold(ONE):
        job = await pool.enqueue_job("stays")
        assert job is not None
        await until(is_kept, "it waits")
    assert await outcome(job) == "ended"
    assert not is_kept()


async def outcome(job: Job) -> Any:
    """Return the result of a job, or the class of its error."""
    try:
        return await job.result(timeout=CLAIM, poll_delay=0.02)
    except JobExecutionFailed as error:
        return type(error)
