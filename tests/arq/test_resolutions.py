"""Strategies, several limits, priorities, and what becomes of jobs that may not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.cron import cron
from arq.jobs import Job, JobStatus
from arq.worker import JobExecutionFailed, func

from limiter_arq import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConcurrencyStrategy,
    ConflictResolution,
    limited,
)
from limiter_core import ArgumentView, Limiter
from limiter_redis import RedisStore
from tests.redis._tools import until, until_true

from ._tools import KEY, ONE, is_waiting, until_idle

Start = Callable[..., Awaitable[Any]]


class JobBodies:
    """Bodies that run until the test ends them, and the order in which they began and ended."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self._may_end: dict[Any, asyncio.Event] = {}

    async def run(self, name: Any) -> str:
        self.begun.append(name)
        await self.may_end(name).wait()
        self.ended.append(name)
        return f"{name} ended"

    def may_end(self, name: Any) -> asyncio.Event:
        return self._may_end.setdefault(name, asyncio.Event())

    async def begins(self, name: Any) -> None:
        await until(lambda: name in self.begun, f"{name} begins")

    def of(self, *limits: ConcurrencyLimit, name: str = "run") -> Any:
        """Return a job's function under these limits."""

        @limited(*limits)
        async def run(ctx: dict[Any, Any], who: Any, region: str = "eu", rank: int = 0) -> str:
            return await self.run(who)

        return func(run, name=name)


@pytest.fixture
def bodies() -> JobBodies:
    return JobBodies()


async def send(pool: ArqRedis, *args: Any, to: str = "run", **kwargs: Any) -> Job:
    await asyncio.sleep(0.002)  # arq's order is one of milliseconds
    job = await pool.enqueue_job(to, *args, **kwargs)
    assert job is not None
    return job


async def outcome(job: Job) -> Any:
    try:
        return await job.result(timeout=20, poll_delay=0.02)
    except (Exception, asyncio.CancelledError) as error:
        return error


def one(**settings: Any) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(KEY), 1, **settings)


async def test_cancel_refuses_the_newcomer(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    worker = await start_worker([bodies.of(one(on_conflict=ConflictResolution.CANCEL))])
    first = await send(pool, "first")
    await bodies.begins("first")
    refused = await send(pool, "second")
    error = await outcome(refused)
    assert isinstance(error, JobExecutionFailed)
    assert str(error) == "concurrency limit reached: 'shared' is full: 1 of 1 slots in use"
    assert await refused.status() is JobStatus.complete
    info = await refused.result_info()
    assert info is not None
    assert (info.success, info.job_try, info.args) == (False, 1, ("second",))
    assert worker.jobs_failed == 1
    bodies.may_end("first").set()
    assert await outcome(first) == "first ended"
    bodies.may_end("third").set()
    assert await outcome(await send(pool, "third")) == "third ended"
    await until_idle(store)


async def test_the_slot_is_free_when_the_result_is_there(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies
) -> None:
    await start_worker([bodies.of(one(on_conflict=ConflictResolution.CANCEL))])
    for number in range(10):
        bodies.may_end(number).set()
        assert await outcome(await send(pool, number)) == f"{number} ended"


async def test_cancel_running_the_latest_wins(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    await start_worker([bodies.of(one(on_conflict=ConflictResolution.CANCEL_RUNNING))])
    first = await send(pool, "first")
    await bodies.begins("first")
    second = await send(pool, "second")
    assert isinstance(await outcome(first), asyncio.CancelledError)
    bodies.may_end("second").set()
    assert await outcome(second) == "second ended"
    assert bodies.ended == ["second"]
    assert await first.status() is JobStatus.complete, "it is not run again"
    await until_idle(store)


async def test_cancel_running_in_another_worker(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies
) -> None:
    function = bodies.of(one(on_conflict=ConflictResolution.CANCEL_RUNNING, lease=1.5))
    await start_worker([function], max_jobs=1)
    first = await send(pool, "first")
    await bodies.begins("first")
    await start_worker([function])
    second = await send(pool, "second")
    assert isinstance(await outcome(first), asyncio.CancelledError)
    bodies.may_end("second").set()
    assert await outcome(second) == "second ended"


async def test_a_body_that_will_not_be_preempted_keeps_its_result(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    begun: list[str] = []

    @limited(one(on_conflict=ConflictResolution.CANCEL_RUNNING))
    async def stubborn(ctx: dict[Any, Any], who: str) -> str:
        begun.append(who)
        if who == "first":
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)
        return who

    worker = await start_worker([func(stubborn, name="stubborn")])
    first = await send(pool, "first", to="stubborn")
    await until(lambda: begun, "it runs")
    second = await send(pool, "second", to="stubborn")
    assert await outcome(first) == "first"
    assert await outcome(second) == "second"
    assert not worker.aborting_tasks
    await until_idle(store)


async def test_keep_latest_replaces_those_that_wait(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    await start_worker([bodies.of(one(on_conflict=ConflictResolution.KEEP_LATEST))])
    first = await send(pool, "first")
    await bodies.begins("first")
    second = await send(pool, "second")
    await until_true(lambda: is_waiting(store), "the second waits")
    third = await send(pool, "third")
    error = await outcome(second)
    assert isinstance(error, JobExecutionFailed)
    assert str(error).startswith("superseded: ")
    for may_end in ("first", "third"):
        bodies.may_end(may_end).set()
    assert await outcome(first) == "first ended"
    assert await outcome(third) == "third ended"
    await until_idle(store)


async def test_a_full_queue_and_a_timeout(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    await start_worker([bodies.of(one(max_waiting=1, timeout=0.5))])
    first = await send(pool, "first")
    await bodies.begins("first")
    second = await send(pool, "second")
    await until_true(lambda: is_waiting(store), "the second waits")
    error = await outcome(await send(pool, "third"))
    assert isinstance(error, JobExecutionFailed)
    assert "the queue of 'shared' is full" in str(error)
    error = await outcome(second)
    assert isinstance(error, JobExecutionFailed)
    assert "timed out waiting for 'shared'" in str(error)
    bodies.may_end("first").set()
    assert await outcome(first) == "first ended"
    await until_idle(store)


async def test_a_retry_has_its_own_time_to_wait(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    """The time that its first try ran for is no waiting."""

    @limited(one(timeout=1.5))
    async def work(ctx: dict[Any, Any], who: str, seconds: float) -> str:
        bodies.begun.append(who)
        await asyncio.sleep(seconds)
        if who == "first" and ctx["job_try"] == 1:
            raise Retry
        return who

    await start_worker([func(work, name="work")])
    first = await send(pool, "first", 1.8, to="work")
    await bodies.begins("first")
    await asyncio.sleep(1.2)
    second = await send(pool, "second", 0.3, to="work")
    await until_true(lambda: is_waiting(store), "the second waits")
    assert await outcome(second) == "second"
    assert await outcome(first) == "first"
    assert bodies.begun == ["first", "second", "first"]


async def test_priority_orders_those_that_wait(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    limit = one(on_conflict=ConflictResolution.PRIORITY, priority=lambda call: call["rank"])
    await start_worker([bodies.of(limit)])
    await send(pool, "first")
    await bodies.begins("first")
    jobs = [await send(pool, rank, rank=rank % 3) for rank in range(6)]
    await until_true(lambda: is_waiting(store, 6), "six wait")
    for name in ("first", *range(6)):
        bodies.may_end(name).set()
    for job in jobs:
        await outcome(job)
    assert bodies.begun == ["first", 2, 5, 1, 4, 0, 3]


async def test_several_limits_are_taken_all_or_none(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    both = bodies.of(
        ConcurrencyLimit("region", 1), ConcurrencyLimit(LIMIT_BY.constant(KEY), 2), name="both"
    )
    await start_worker([both])
    for name, region in (("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us"), ("us-2", "us")):
        await send(pool, name, region=region, to="both")
    for name in ("eu-1", "us-1"):  # of two keys: either may begin first
        await bodies.begins(name)
    assert sorted(bodies.begun) == ["eu-1", "us-1"]
    bodies.may_end("us-1").set()
    await bodies.begins("us-2")
    assert "eu-2" not in bodies.begun
    for name in ("eu-1", "eu-2", "us-2"):
        bodies.may_end(name).set()
    await until_idle(store)
    assert sorted(bodies.ended) == ["eu-1", "eu-2", "us-1", "us-2"]


class ByLetter(ConcurrencyStrategy):
    async def get_key(self, execution: ArgumentView) -> str:
        await asyncio.sleep(0)
        return str(execution.get_argument("who"))[0]


@pytest.mark.parametrize(
    "limit",
    [
        ConcurrencyLimit(ByLetter(), 1),
        ConcurrencyLimit(LIMIT_BY.fn(lambda call: call["who"][0]), 1),
        ConcurrencyLimit(
            "region", lambda call: 1 if call["region"] == "eu" else 5
        ),  # per-tenant numbers; a default counts as given
        ConcurrencyLimit(["region", "rank"], 1),
        ConcurrencyLimit(max_concurrent=1),
    ],
    ids=["strategy", "function", "per tenant", "arguments", "function's name"],
)
async def test_strategies_see_the_arguments(
    pool: ArqRedis,
    start_worker: Start,
    bodies: JobBodies,
    store: RedisStore,
    limit: ConcurrencyLimit,
) -> None:
    await start_worker([bodies.of(limit)])
    await send(pool, "a1")
    second = await send(pool, "a2")
    await bodies.begins("a1")
    await until_true(lambda: parked(pool, second), "the second waits")
    bodies.may_end("a1").set()
    bodies.may_end("a2").set()
    assert await outcome(second) == "a2 ended"
    await until_idle(store)


async def parked(pool: ArqRedis, job: Job) -> bool:
    return bool(await pool.zscore("arq:queue", job.job_id) % 1)


async def test_an_operator_changes_a_limit_at_run_time(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, store: RedisStore
) -> None:
    """The process that raises it gets the notices; here it is no worker, and a sweep wakes them."""
    await start_worker([bodies.of(ONE)], claim=0.5)
    for name in ("a", "b", "c"):
        await send(pool, name)
    await until_true(lambda: is_waiting(store, 2), "two wait")
    limiter = Limiter(store)
    await limiter.set_limit(KEY, 3)
    await bodies.begins("b")
    await bodies.begins("c")
    await limiter.reset_limit(KEY)
    await limiter.pause(KEY)
    for name in ("a", "b", "c", "d"):
        bodies.may_end(name).set()
    job = await send(pool, "d")
    await until_true(lambda: is_waiting(store), "it waits for the operator")
    await limiter.resume(KEY)
    assert await outcome(job) == "d ended"
    await limiter.aclose()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.InvalidStateError])
async def test_a_key_function_that_raises_fails_the_job(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies, error: type[Exception]
) -> None:
    def key(call: ArgumentView) -> str:
        raise error("no key")

    await start_worker(
        [bodies.of(ConcurrencyLimit(LIMIT_BY.fn(key), 1)), bodies.of(ONE, name="other")]
    )
    assert isinstance(await outcome(await send(pool, "a")), error)
    bodies.may_end("b").set()
    assert await outcome(await send(pool, "b", to="other")) == "b ended", "the worker lives"


async def test_an_argument_that_leads_nowhere_fails_the_job(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies
) -> None:
    await start_worker([bodies.of(ConcurrencyLimit("who.customer", 1))])
    found = await outcome(await send(pool, "a"))
    assert isinstance(found, JobExecutionFailed), "a class that producers know"
    assert "'who.customer' leads nowhere" in str(found)


async def test_a_dropped_cron_run_is_not_enqueued_again(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies
) -> None:
    """arq marks a cron job for a minute, for workers that are late; a refused one, too."""
    refusing = one(on_conflict=ConflictResolution.CANCEL)

    @limited(refusing)
    async def nightly(ctx: dict[Any, Any]) -> None:
        bodies.begun.append("nightly")

    jobs = [cron(nightly, second=set(range(60)), microsecond=0)]
    await send(pool, "first")
    worker = await start_worker([bodies.of(refusing)], cron_jobs=jobs)
    await until(lambda: worker.jobs_failed >= 1, "a run is dropped")
    marks = await pool.keys("arq:in-progress:cron:*")
    assert marks
    assert 10_000 < await pool.pttl(marks[0]) <= 60_000
    assert "nightly" not in bodies.begun


async def test_cron_jobs_wait_and_run(
    pool: ArqRedis, start_worker: Start, bodies: JobBodies
) -> None:
    @limited(ONE)
    async def nightly(ctx: dict[Any, Any]) -> None:
        bodies.begun.append("nightly")

    jobs = [cron(nightly, second=set(range(60)), microsecond=0)]
    await send(pool, "first")
    await start_worker([bodies.of(ONE)], cron_jobs=jobs)
    await until_true(lambda: some_cron_is_parked(pool), "a run waits")
    assert "nightly" not in bodies.begun
    bodies.may_end("first").set()
    await bodies.begins("nightly")


async def some_cron_is_parked(pool: ArqRedis) -> bool:
    queued = await pool.zrange("arq:queue", 0, -1, withscores=True)
    return any(name.startswith(b"cron:") and score % 1 for name, score in queued)
