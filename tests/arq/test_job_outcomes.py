"""A slot is released once, however a job ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.constants import abort_jobs_ss
from arq.jobs import Job, JobStatus
from arq.worker import JobExecutionFailed, func

from limiter_arq import LIMIT_BY, ConcurrencyLimit, limited
from limiter_arq._job_fetcher import JobFetcher
from limiter_arq._job_queue import FetchedJob, is_parked
from limiter_core import Limiter
from limiter_core.lease import Lease
from limiter_redis import RedisStore
from tests.redis._servers import Server
from tests.redis._tools import until, until_true

from ._tools import KEY, ONE, is_waiting, until_idle

Start = Callable[..., Awaitable[Any]]

released: list[str] = []


@pytest.fixture(autouse=True)
def count_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    released.clear()
    true = Lease.release

    async def release(self: Lease) -> None:
        released.append(self.id)
        await true(self)

    monkeypatch.setattr(Lease, "release", release)


tries: list[int] = []


@limited(ONE)
async def ending(ctx: dict[Any, Any], how: str) -> str:
    tries.append(ctx["job_try"])
    match how:
        case "error":
            raise ValueError(how)
        case "retry":
            if ctx["job_try"] < 3:
                raise Retry
        case "retry later":
            if ctx["job_try"] < 3:
                raise Retry(defer=0.05)
        case "too many retries":
            raise Retry
        case "long":
            await asyncio.sleep(1000)
        case "bad repr":
            return BadRepr()  # type: ignore[return-value]
    return how


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@limited(ONE)
async def after(ctx: dict[Any, Any]) -> str:
    return "after"


async def outcome(job: Job) -> Any:
    try:
        return await job.result(timeout=20, poll_delay=0.02)
    except (Exception, asyncio.CancelledError) as error:
        return error


@pytest.mark.parametrize(
    ("how", "expected", "runs"),
    [
        ("fine", str, [1]),
        ("error", ValueError, [1]),
        ("retry", str, [1, 2, 3]),
        ("retry later", str, [1, 2, 3]),
        ("too many retries", JobExecutionFailed, [1, 2, 3, 4, 5]),
        ("long", asyncio.TimeoutError, [1]),
        ("bad repr", RuntimeError, [1]),
    ],
)
async def test_a_slot_is_given_back(  # noqa: PLR0917
    pool: ArqRedis,
    start_worker: Start,
    store: RedisStore,
    how: str,
    expected: type,
    runs: list[int],
) -> None:
    tries.clear()
    await start_worker([func(ending, timeout=0.2), after])
    job = await pool.enqueue_job("ending", how)
    assert job is not None
    assert isinstance(await outcome(job), expected)
    follower = await pool.enqueue_job("after")
    assert follower is not None
    assert await outcome(follower) == "after"
    assert tries == runs
    await until_idle(store)
    starts = len(runs) + 1 + (how == "too many retries")  # the sixth delivery finds none left
    assert len(released) == starts


async def test_wrong_arguments_fail_as_they_do_under_arq(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    await start_worker([ending])
    job = await pool.enqueue_job("ending", "fine", "too", "many")
    assert job is not None
    error = await outcome(job)
    assert isinstance(error, TypeError)
    assert "takes 2 positional arguments but 4 were given" in str(error)
    assert not released
    await until_idle(store)


async def test_a_running_job_is_aborted(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    worker = await start_worker([ending, after])
    job = await pool.enqueue_job("ending", "long")
    assert job is not None
    await until(lambda: worker.job_tasks, "it runs")
    follower = await pool.enqueue_job("after")
    assert follower is not None
    await until_true(lambda: is_waiting(store), "the other waits")
    assert await job.abort(timeout=20, poll_delay=0.02)
    assert await outcome(follower) == "after"
    assert len(released) == 2
    assert not worker.aborting_tasks
    await until_idle(store)


@pytest.mark.parametrize("moment", ["at once", "after the park"])
async def test_a_waiting_job_is_aborted_and_never_runs(
    pool: ArqRedis, start_worker: Start, store: RedisStore, moment: str
) -> None:
    tries.clear()
    await start_worker([ending, after])
    first = await pool.enqueue_job("ending", "long")
    assert first is not None
    await until(lambda: tries, "it runs")
    tries.clear()
    job = await pool.enqueue_job("ending", "fine")
    assert job is not None
    await until_true(lambda: is_waiting(store), "it waits")
    if moment == "at once":
        assert await job.abort(timeout=20, poll_delay=0.02)
    else:
        # `Job.abort` has moved it already; the worker has parked it again in between.
        await pool.zadd(abort_jobs_ss, {job.job_id: 1})
        assert isinstance(await outcome(job), asyncio.CancelledError)
    await until_true(lambda: is_waiting(store, 0), "its ticket is gone")
    assert not tries
    assert await first.abort(timeout=20, poll_delay=0.02)
    await until_idle(store)


async def test_a_job_that_expires_while_it_waits_is_noticed_then(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    worker = await start_worker([ending, after])
    long = await pool.enqueue_job("ending", "long")
    assert long is not None
    await until(lambda: worker.job_tasks, "it runs")
    job = await pool.enqueue_job("ending", "fine", _expires=0.3)
    follower = await pool.enqueue_job("after")
    assert job is not None
    assert follower is not None
    assert await outcome(job) == JobExecutionFailed("job expired")
    assert await long.abort(timeout=20, poll_delay=0.02)
    assert await outcome(follower) == "after", "the line moves on"
    await until_idle(store)


async def test_a_slot_that_a_job_gets_after_it_expired_goes_to_the_next_at_once(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    """Its worker was busy until then."""
    claim = 60.0
    may_end = asyncio.Event()

    async def busy(ctx: dict[Any, Any]) -> None:
        await may_end.wait()

    worker = await start_worker([ending, after, func(busy, name="busy")], max_jobs=1, claim=claim)
    async with Limiter(store) as limiter:
        async with limiter.hold(ONE):
            expired = await pool.enqueue_job("ending", "fine", _expires=1)
            await until_true(lambda: is_waiting(store), "it waits")
            follower = await pool.enqueue_job("after")
            await until_true(lambda: is_waiting(store, 2), "both wait")
            await pool.enqueue_job("busy")
            await until(lambda: worker.job_tasks, "the worker is busy")
            assert expired is not None
            assert follower is not None
            await until_true(lambda: is_gone(pool, expired), "it expired")

        async def is_woken() -> bool:
            return not is_parked(await pool.zscore("arq:queue", expired.job_id))

        await until_true(is_woken, "a slot is kept for the expired one")
        may_end.set()
        async with asyncio.timeout(claim / 2):
            assert await outcome(follower) == "after"
        assert await outcome(expired) == JobExecutionFailed("job expired")
    await until_idle(store)


async def is_gone(pool: ArqRedis, job: Job) -> bool:
    return not await pool.exists(f"arq:job:{job.job_id}")


async def test_a_wait_may_extend_the_expiry(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    worker = await start_worker([ending], wait_extends_expiry=True, expires_extra_ms=5000)
    long = await pool.enqueue_job("ending", "long")
    assert long is not None
    await until(lambda: worker.job_tasks, "it runs")
    job = await pool.enqueue_job("ending", "fine", _expires=2)
    assert job is not None
    await until_true(lambda: is_waiting(store), "it waits")
    await until_true(lambda: lives_longer(pool, job), "its end is far")
    assert await long.abort(timeout=20, poll_delay=0.02)
    assert await outcome(job) == "fine"


async def lives_longer(pool: ArqRedis, job: Job) -> bool:
    return bool(await pool.pttl(f"arq:job:{job.job_id}") > 5000)


async def test_an_evicted_job_fails_and_is_not_run_again(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    await start_worker([ending, after])
    job = await pool.enqueue_job("ending", "long")
    assert job is not None
    face = store.async_face()
    await until_true(lambda: holders(store), "it runs")
    (holder,) = (await face.inspect(KEY)).holders
    assert holder.label == f"{job.job_id}:ending"
    assert await face.evict(holder.id)
    error = await outcome(job)
    assert isinstance(error, JobExecutionFailed)
    assert "evicted" in str(error)
    await until_idle(store)


async def test_a_job_is_ended_by_its_max_hold(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    @limited(ConcurrencyLimit(LIMIT_BY.constant("held"), 1, max_hold=0.3))
    async def held(ctx: dict[Any, Any]) -> None:
        await asyncio.sleep(1000)

    await start_worker([func(held, name="held")])
    job = await pool.enqueue_job("held")
    assert job is not None
    error = await outcome(job)
    assert isinstance(error, JobExecutionFailed)
    assert "lost the lease" in str(error)
    await until_idle(store)


async def holders(store: RedisStore) -> int:
    return len((await store.async_face().inspect(KEY)).holders)


async def test_a_waiting_job_as_its_producer_sees_it(
    pool: ArqRedis, start_worker: Start, store: RedisStore
) -> None:
    worker = await start_worker([ending, after])
    long = await pool.enqueue_job("ending", "long")
    assert long is not None
    await until(lambda: worker.job_tasks, "it runs")
    job = await pool.enqueue_job("after", _job_id="waits")
    assert job is not None
    await until_true(lambda: is_waiting(store), "it waits")
    await until(lambda: len(worker.tasks) == 1, "the waiting job uses no slot of the worker")
    assert await job.status() is JobStatus.deferred
    assert await pool.enqueue_job("after", _job_id="waits") is None
    assert [each.function for each in await pool.queued_jobs()].count("after") == 1
    assert worker.jobs_retried == 0
    assert await pool.get("arq:retry:waits") is None
    assert await long.abort(timeout=20, poll_delay=0.02)
    assert await outcome(job) == "after"
    again = await pool.enqueue_job("after", _job_id="waits")
    assert again is None, "arq keeps its result"


async def test_a_signal_before_a_jobs_first_step_leaves_it_to_the_next_worker(
    pool: ArqRedis, start_worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[FetchedJob] = []
    begin = JobFetcher._start

    def begin_and_stop(fetcher: JobFetcher, job: FetchedJob) -> None:
        begin(fetcher, job)
        begun.append(job)
        worker.handle_sig(signal.SIGINT)

    monkeypatch.setattr(JobFetcher, "_start", begin_and_stop)
    worker = await start_worker([after])
    job = await pool.enqueue_job("after")
    assert job is not None
    await until(lambda: begun, "the job was fetched")
    await worker.close()
    assert not await pool.keys("arq:in-progress:*")
    monkeypatch.undo()
    await start_worker([after])
    assert await outcome(job) == "after"


async def test_a_worker_that_only_lets_its_bodies_end_leaves_the_line_to_others(
    pool: ArqRedis, start_worker: Start, server: Server
) -> None:
    """Jobs that no worker fetches block no others, however long the bodies take."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("line"), 1)
    begun = asyncio.Event()

    @limited(limit)
    async def body(ctx: dict[Any, Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = await start_worker([func(body, name="body")], job_completion_wait=300)
    await pool.enqueue_job("body")
    await begun.wait()
    await pool.enqueue_job("body")
    async with Limiter(server.url) as limiter:

        async def waiting() -> tuple[int, int]:
            seen = await limiter.inspect(limit)
            return seen.waiting, sum(each.waiting for each in seen.dormant)

        await until_true(_is(waiting, (1, 0)), "the second waits")
        worker.handle_sig_wait_for_completion(signal.SIGTERM)
        await until_true(_is(waiting, (0, 1)), "it is dormant")
        assert not worker.main_task.done()


def _is(found: Callable[[], Awaitable[Any]], expected: Any) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(await found() == expected)

    return holds
