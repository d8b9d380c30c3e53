"""The queue, the fetcher and the dispatcher, each built alone: on Redis, and without a worker."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from arq.connections import ArqRedis
from arq.utils import timestamp_ms

from limiter_arq._dispatcher import Dispatcher
from limiter_arq._job_fetcher import JobFetcher
from limiter_arq._job_queue import FetchedJob, JobQueue, NotFetched, ParkedJob, is_parked
from limiter_core.jobs import BackgroundTasks
from limiter_core.requests import Granted, Notice
from tests.redis._tools import until

from ._parts import Jobs, parked

# -- the queue -------------------------------------------------------------------------------------


async def test_the_queue_fetches_a_job_once(pool: ArqRedis, queue: JobQueue) -> None:
    await pool.enqueue_job("work", _job_id="a")
    first, missing = await queue.fetch([("a", None), ("b", None)], 10.0)
    assert isinstance(first, FetchedJob)
    assert (first.job_id, first.tries, first.aborted) == ("a", 0, False)
    assert missing is NotFetched.GONE
    assert await queue.fetch([("a", None)], 10.0) == [NotFetched.RUNNING]
    await queue.put_back("a", timestamp_ms() + 60_000.5)
    assert await queue.fetch([("a", None)], 10.0) == [NotFetched.NOT_DUE]
    assert is_parked(await queue.score("a") or 0)


async def test_the_queue_brings_a_parked_job_forward(pool: ArqRedis, queue: JobQueue) -> None:
    await pool.enqueue_job("work", _job_id="a")
    await queue.put_back("a", timestamp_ms() + 60_000.5)
    assert await queue.due(10) == []
    assert await queue.bring_forward(ParkedJob("arq:queue", "a", 1), notify=False)
    assert await queue.due(10) == [b"a"]
    assert not await queue.bring_forward(ParkedJob("arq:queue", "gone", 1), notify=False)


# -- the fetcher -----------------------------------------------------------------------------------


def fetcher_of(
    jobs: Jobs, queue: JobQueue, background: BackgroundTasks, run: Any
) -> tuple[JobFetcher, list[str]]:
    left: list[str] = []
    fetcher = JobFetcher(
        jobs=jobs,
        queue=queue,
        background=background,
        run=run,
        on_job_left=lambda: left.append("left"),
        read_limit=100,
        in_progress=10.0,
        is_open=True,
    )
    return fetcher, left


async def test_the_fetcher_starts_as_many_jobs_as_there_are_slots_and_the_rest_as_they_end(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    ran: list[str] = []
    may_end = asyncio.Event()

    async def run(job: FetchedJob) -> None:
        ran.append(job.job_id)
        await may_end.wait()
        await pool.zrem("arq:queue", job.job_id)

    for job_id in "abc":
        await pool.enqueue_job("work", _job_id=job_id)
    jobs = Jobs(slots=2)
    fetcher, left = fetcher_of(jobs, queue, background, run)
    await fetcher.start_due([b"a", b"b", b"c"])
    await until(lambda: len(ran) == 2, "two jobs run")
    assert jobs.slots == 0
    assert fetcher.has_more
    may_end.set()
    await until(lambda: len(left) == 3, "all have left")
    assert sorted(ran) == ["a", "b", "c"]
    assert jobs.slots == 2


async def test_the_fetcher_puts_back_what_it_fetched_when_the_worker_stops_meanwhile(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    await pool.enqueue_job("work", _job_id="a")
    jobs = Jobs()
    jobs.may = False

    async def run(job: FetchedJob) -> None:
        raise AssertionError(job)

    fetcher, _ = fetcher_of(jobs, queue, background, run)
    await fetcher.start([("a", None)])
    assert jobs.slots == 1
    assert not await pool.exists("arq:in-progress:a")
    assert await queue.due(10) == [b"a"]


async def test_a_closed_fetcher_asks_for_nothing(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    fetcher, _ = fetcher_of(Jobs(), queue, background, None)
    fetcher.is_open = False
    assert await fetcher.start([("a", None)]) == [NotFetched.NO_FREE_SLOT]


# -- the dispatcher --------------------------------------------------------------------------------


class Dispatching:
    """A dispatcher, and what came of it."""

    def __init__(self, jobs: Jobs, queue: JobQueue, background: BackgroundTasks) -> None:
        self.ran: list[str] = []
        self.dropped: list[str] = []
        self.ending = 0

        async def run(job: FetchedJob) -> None:
            self.ran.append(job.job_id)

        async def drop(ticket: str) -> None:
            self.dropped.append(ticket)

        self.fetcher, _ = fetcher_of(jobs, queue, background, run)
        self.dispatcher = Dispatcher(
            queue=queue,
            jobs=jobs,
            fetcher=self.fetcher,
            background=background,
            drop=drop,
            count_ending=lambda: self.ending,
            stale_after=1.0,
        )
        self.fetcher.on_job_left = self.dispatcher.dispatch_kept


async def test_the_dispatcher_starts_a_granted_job_here_or_makes_it_due(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    jobs = Jobs()
    all_of_it = Dispatching(jobs, queue, background)
    notice = Notice("ticket", (await parked(pool, queue, "a")).payload(), Granted(1, 30.0))
    threading.Thread(target=all_of_it.dispatcher.on_notice, args=[notice]).start()
    await until(lambda: all_of_it.ran == ["a"], "the job runs here")
    jobs.slots = 0
    all_of_it.dispatcher.dispatch(await parked(pool, queue, "b"), "other")
    await background.done(5.0)
    assert b"b" in await queue.due(10)
    assert all_of_it.ran == ["a"]
    assert all_of_it.dropped == []


async def test_the_dispatcher_drops_the_ticket_of_a_job_that_is_gone(
    queue: JobQueue, background: BackgroundTasks
) -> None:
    jobs = Jobs()
    all_of_it = Dispatching(jobs, queue, background)
    for slots in (1, 0):
        jobs.slots = slots
        all_of_it.dispatcher.dispatch(ParkedJob("arq:queue", "gone", 1), f"ticket {slots}")
        await background.done(5.0)
    assert all_of_it.dropped == ["ticket 1", "ticket 0"]


async def test_the_dispatcher_keeps_a_job_for_the_slot_of_one_that_ends(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    jobs = Jobs(slots=0)
    all_of_it = Dispatching(jobs, queue, background)
    all_of_it.ending = 1
    all_of_it.dispatcher.dispatch(await parked(pool, queue, "a"), "ticket")
    await background.done(5.0)
    assert all_of_it.ran == []
    jobs.release()
    all_of_it.dispatcher.dispatch_kept()
    await until(lambda: all_of_it.ran == ["a"], "it runs here")
