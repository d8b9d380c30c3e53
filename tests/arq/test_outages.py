"""The store cannot be used: jobs are kept, the worker runs on, and logs it once."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job
from arq.worker import JobExecutionFailed, func

from limiter_arq import LIMIT_BY, ConcurrencyLimit, ConflictResolution, limited
from limiter_redis import RedisStore
from tests.redis._proxy import Proxy
from tests.redis._servers import Process
from tests.redis._tools import until, until_true

from ._local_worker import LocalWorker
from ._tools import ONE, until_idle

Start = Callable[..., Awaitable[Any]]


@limited(ONE)
async def work(ctx: dict[Any, Any], seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return int(ctx["job_try"])


async def plain(ctx: dict[Any, Any]) -> str:
    return "plain"


async def result(job: Job | None) -> Any:
    assert job is not None
    return await job.result(timeout=20, poll_delay=0.02)


async def test_the_store_is_away_at_the_gate(
    pool: ArqRedis,
    start_worker: Start,
    own_server: Callable[..., Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_server()
    worker = await start_worker([work, plain], limiter=server.url)
    assert await result(await pool.enqueue_job("work")) == 1
    server.kill()
    caplog.clear()
    jobs = [await pool.enqueue_job("work") for _ in range(15)]
    assert await result(await pool.enqueue_job("plain")) == "plain", "others go on"
    await until_true(lambda: all_parked(pool, 15), "they are put back")
    assert worker.jobs_failed == 0
    server.start()
    for job in jobs:
        assert await result(job) == 1, "no try was spent"
    told = [record for record in caplog.records if record.name == "limiter"]
    assert [record.levelno for record in told if "cannot be used" in record.message] == [
        logging.WARNING
    ]
    assert sum("is back" in record.message for record in told) == 1


async def all_parked(pool: ArqRedis, count: int) -> bool:
    scores = await pool.zrange("arq:queue", 0, -1, withscores=True)
    return sum(score % 1 == 0.5 for _, score in scores) == count


async def test_the_store_answers_nothing_at_the_gate(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    server = own_server()
    with Proxy(server.port) as proxy:
        await start_worker(
            [work, plain], limiter=RedisStore(f"{proxy.url}?socket_timeout=0.5"), max_jobs=2
        )
        assert await result(await pool.enqueue_job("work")) == 1
        proxy.hold_up()
        jobs = [await pool.enqueue_job("work") for _ in range(5)]
        assert await result(await pool.enqueue_job("plain")) == "plain", "others go on"
        proxy.let_pass()
        for job in jobs:
            assert await result(job) == 1


async def test_jobs_may_run_without_a_slot_while_the_store_is_away(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    server = own_server()
    await start_worker([work], limiter=server.url, on_store_error="admit")
    server.kill()
    assert await result(await pool.enqueue_job("work")) == 1
    server.start()
    assert await result(await pool.enqueue_job("work")) == 1


async def test_the_store_is_away_at_the_release(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    """The result is kept in time; the lease ends by itself."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    brief = ConcurrencyLimit(LIMIT_BY.constant("brief"), 1, lease=1.5, on_lost="warn")
    may_end = asyncio.Event()

    @limited(brief)
    async def hold(ctx: dict[Any, Any]) -> str:
        await may_end.wait()
        return "held"

    worker = await start_worker([func(hold, name="hold")], limiter=server.url)
    job = await pool.enqueue_job("hold")
    await until(lambda: worker.job_tasks, "it runs")
    server.kill()
    may_end.set()
    assert await result(job) == "held"
    server.start()
    assert await result(await pool.enqueue_job("hold")) == "held"


async def test_a_lease_lost_in_an_outage_stops_the_body_and_the_job_runs_again(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    server = own_server()
    begun: list[int] = []

    @limited(ConcurrencyLimit(LIMIT_BY.constant("brief"), 1, lease=1.0))
    async def hold(ctx: dict[Any, Any]) -> int:
        begun.append(ctx["job_try"])
        if len(begun) == 1:
            await asyncio.sleep(1000)
        return int(ctx["job_try"])

    await start_worker([func(hold, name="hold")], limiter=server.url)
    job = await pool.enqueue_job("hold")
    await until(lambda: begun, "it runs")
    server.kill()
    await until_true(lambda: all_parked(pool, 1), "it was stopped, and waits for the store")
    server.start()
    assert await result(job) == 2
    assert begun == [1, 2]


async def test_a_deferred_job_that_an_outage_put_off_waits_its_timeout(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    """The time at which it was due is lost with its place in arq's queue: it waits from then on."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    may_end = asyncio.Event()

    @limited(ConcurrencyLimit(LIMIT_BY.constant("brief"), 1, timeout=3.0))
    async def hold(ctx: dict[Any, Any]) -> str:
        await may_end.wait()
        return "held"

    worker = await start_worker([func(hold, name="hold")], limiter=server.url)
    first = await pool.enqueue_job("hold")
    await until(lambda: worker.job_tasks, "it runs")
    server.kill()
    job = await pool.enqueue_job("hold", _defer_by=3.2)
    await until_true(lambda: all_parked(pool, 1), "it is put back")
    server.start()
    other = RedisStore(server.url)

    async def it_waits() -> bool:
        return (await other.async_face().inspect("brief")).waiting == 1

    try:
        await until_true(it_waits, "it waits")
    finally:
        await other.aclose()
    may_end.set()
    assert await result(first) == "held"
    assert await result(job) == "held"


async def test_a_job_that_runs_without_a_slot_is_not_taken_for_a_dead_workers(
    pool: ArqRedis, start_worker: Start, own_server: Callable[..., Process]
) -> None:
    """Its old ticket comes to its turn while it runs: arq's mark still keeps others away."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    begun: list[str] = []
    _may_end = {"first": asyncio.Event(), "second": asyncio.Event()}

    @limited(ConcurrencyLimit(LIMIT_BY.constant("brief"), 1, lease=60.0))
    async def hold(ctx: dict[Any, Any], name: str) -> str:
        begun.append(name)
        await _may_end[name].wait()
        return name

    settings = {"limiter": server.url, "on_store_error": "admit", "claim": 0.4, "max_jobs": 1}
    workers = [await start_worker([func(hold, name="hold")], **settings) for _ in range(2)]
    first = await pool.enqueue_job("hold", "first")
    await until(lambda: begun == ["first"], "the first runs")
    second = await pool.enqueue_job("hold", "second")
    await until_true(lambda: some_parked(pool), "the second waits")
    server.kill()
    assert second is not None
    await pool.zadd("arq:queue", {second.job_id: 1.5})  # it comes back by itself
    await until(lambda: begun == ["first", "second"], "it runs without a slot")
    await asyncio.sleep(0.5)  # longer than half of the claim
    server.start()
    _may_end["first"].set()
    assert await result(first) == "first"
    await asyncio.sleep(2.0)  # its turn comes, and its claim lapses
    assert begun == ["first", "second"]
    _may_end["second"].set()
    assert await result(second) == "second"
    assert sum(worker.jobs_complete for worker in workers) == 2


async def some_parked(pool: ArqRedis) -> bool:
    scores = await pool.zrange("arq:queue", 0, -1, withscores=True)
    return any(score % 1 == 0.5 for _, score in scores)


# -- serializers -----------------------------------------------------------------------------------


def to_json(job: dict[str, Any]) -> bytes:
    return json.dumps(job, default=repr).encode()


@pytest.fixture
async def json_pool(pool: ArqRedis) -> AsyncIterator[ArqRedis]:
    settings = RedisSettings(host="127.0.0.1", port=pool.connection_pool.connection_kwargs["port"])
    pool = await create_pool(settings, job_serializer=to_json, job_deserializer=json.loads)
    yield pool
    await pool.aclose()


async def test_custom_serializers_also_of_a_job_that_is_refused(
    json_pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    limit = ConcurrencyLimit("user.id", 1, on_conflict=ConflictResolution.CANCEL)

    @limited(limit)
    async def sync(ctx: dict[Any, Any], user: dict[str, int]) -> int:
        await asyncio.sleep(0.5 if user.get("slow") else 0)
        return user["id"]

    await start_worker(
        [func(sync, name="sync")], job_serializer=to_json, job_deserializer=json.loads
    )
    first = await json_pool.enqueue_job("sync", {"id": 7, "slow": 1})
    other = await json_pool.enqueue_job("sync", {"id": 8})
    assert await result(other) == 8
    refused = await json_pool.enqueue_job("sync", {"id": 7})
    assert refused is not None
    await until_true(refused.result_info, "it is refused")
    info = await refused.result_info()
    assert info is not None
    assert (info.success, info.args) == (False, [{"id": 7}])
    assert "JobExecutionFailed" in info.result
    assert await result(first) == 7
    await until_idle(store)


async def test_a_job_that_nobody_can_read_fails_as_under_arq(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    worker = await start_worker([work])
    job = await pool.enqueue_job("work")
    unreadable = await pool.enqueue_job("work", _defer_by=0.1)
    unknown = await pool.enqueue_job("nobody")
    assert unreadable is not None
    await pool.set(f"arq:job:{unreadable.job_id}", b"?", ex=60)
    assert await result(job) == 1
    with pytest.raises(JobExecutionFailed, match="not found"):
        await result(unknown)
    await until(lambda: worker.jobs_failed == 2, "both failed")
    await until_idle(store)


async def test_lapsed_claims_are_offered_again(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    """The worker has no room for the jobs that are woken: their slots are offered anew."""

    async def busy(ctx: dict[Any, Any]) -> None:
        await asyncio.sleep(0.7)

    await start_worker([work, func(busy, name="busy")], max_jobs=2, claim=0.2)
    jobs = [await pool.enqueue_job("work", 0.01) for _ in range(6)]
    jobs += [await pool.enqueue_job("busy") for _ in range(4)]
    jobs += [await pool.enqueue_job("work", 0.01) for _ in range(6)]
    for job in jobs:
        await result(job)
    await until_idle(store)


async def test_a_worker_is_run_again(pool: ArqRedis, store: RedisStore) -> None:
    """As arq's `--watch` does when files change."""
    port = pool.connection_pool.connection_kwargs["port"]
    local_worker = LocalWorker(f"redis://127.0.0.1:{port}", [work], {"burst": True})
    async with local_worker as worker:
        for _ in range(2):
            jobs = [await pool.enqueue_job("work") for _ in range(3)]
            await worker.async_run()
            for job in jobs:
                assert await result(job) == 1
            worker.handle_sig(signal.SIGUSR1)
            await worker.close()


@pytest.mark.parametrize("most", [1, 3])
async def test_a_burst_of_so_many_jobs(pool: ArqRedis, store: RedisStore, most: int) -> None:
    port = pool.connection_pool.connection_kwargs["port"]
    for _ in range(5):
        await pool.enqueue_job("work")
    local_worker = LocalWorker(
        f"redis://127.0.0.1:{port}", [work], {"burst": True, "max_burst_jobs": most}
    )
    worker = await local_worker.__aenter__()
    await local_worker._task
    assert worker.jobs_complete == most
    await local_worker.__aexit__(None, None, None)
