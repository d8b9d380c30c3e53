"""A job that waits, and whose function the workers do not have any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arq.connections import ArqRedis
from arq.worker import JobExecutionFailed, func

from limiter_arq import limited
from limiter_core import Limiter
from limiter_redis import RedisStore
from tests.arq._local_worker import LocalWorker
from tests.redis._servers import Server
from tests.redis._tools import until_true

from ._tools import ONE, is_waiting, until_idle

CLAIM = 30.0
"""Seconds for which a slot would be kept for a job that does not take it."""


@limited(ONE)
async def body(ctx: dict[Any, Any]) -> str:
    return "ended"


BODY: Any = body  # arq asks for what `async def` makes


async def test_the_slot_of_a_job_whose_function_is_gone_goes_to_the_next(
    server: Server,
    pool: ArqRedis,
    start_worker: Callable[..., Awaitable[Any]],
    store: RedisStore,
) -> None:
    stays, goes = func(BODY, name="stays"), func(BODY, name="goes")
    limiter = Limiter(store)
    async with limiter.hold(ONE):
        async with LocalWorker(server.url, [stays, goes], {"claim": CLAIM}):
            first = await pool.enqueue_job("goes")
            await until_true(lambda: is_waiting(store), "it waits")
            second = await pool.enqueue_job("stays")
            await until_true(lambda: is_waiting(store, 2), "both wait")
        await start_worker([stays], claim=CLAIM)
    assert first is not None
    assert second is not None
    async with asyncio.timeout(CLAIM / 2):
        assert await second.result(poll_delay=0.02) == "ended"
    assert isinstance(await _error_of(first), JobExecutionFailed)
    await until_idle(store)
    await limiter.aclose()


async def _error_of(job: Any) -> BaseException | None:
    try:
        await job.result(timeout=20, poll_delay=0.02)
    except JobExecutionFailed as error:
        return error
    return None
