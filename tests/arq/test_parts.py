"""The parts of a `LimitedWorker`, each built alone: with a queue in Redis, and without a worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed, Worker, func

from limiter_arq import ConcurrencyLimit, limited
from limiter_arq._admission import Admission
from limiter_arq._dispatcher import Dispatcher
from limiter_arq._job_fetcher import JobFetcher
from limiter_arq._job_queue import FetchedJob, JobQueue, NotFetched, ParkedJob, is_parked
from limiter_arq._job_run import JobRun, current_run
from limiter_arq._job_runner import JobRunner
from limiter_arq._worker_jobs import JobCall, WorkerJobs
from limiter_core import LIMIT_BY, ArgumentView, ConflictResolution, Lease, LimitReached
from limiter_core.jobs import BackgroundTasks, Job, JobGate
from limiter_core.requests import Granted, Loss, Notice
from limiter_memory import MemoryStore
from tests.redis._tools import until

from ._tools import ONE


class Jobs(WorkerJobs):
    """The jobs of a worker that there is not: as many at once as the test says."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.may = True
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.bodies: set[str] = set()
        self.cancelled: list[tuple[str, bool]] = []

    def may_start(self) -> bool:
        return self.may

    def free_slots(self) -> int:
        return self.slots

    def reserve(self, count: int) -> None:
        self.slots -= count

    def release(self, count: int = 1) -> None:
        self.slots += count

    def unfinished(self) -> set[str]:
        return {job_id for job_id, task in self.tasks.items() if not task.done()}

    def is_body_running(self, job_id: str) -> bool:
        return job_id in self.bodies

    def start(
        self, job_id: str, job: Coroutine[Any, Any, None], on_end: Callable[[bool], object]
    ) -> None:
        self.tasks[job_id] = task = asyncio.create_task(job)
        task.add_done_callback(lambda task: on_end(task.cancelled()))

    def is_task_of(self, job_id: str, task: asyncio.Task[Any]) -> bool:
        return self.tasks.get(job_id) is task

    def cancel_body(self, job_id: str, *, as_aborted: bool) -> None:
        self.cancelled.append((job_id, as_aborted))

    def forget_abort(self, job_id: str) -> None: ...


@pytest.fixture
async def queue(pool: ArqRedis) -> AsyncIterator[JobQueue]:
    queue = JobQueue(pool, "arq:queue")
    yield queue
    await queue.aclose()


@pytest.fixture
async def background() -> AsyncIterator[BackgroundTasks]:
    background = BackgroundTasks()
    yield background
    await background.done(5.0)


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


async def parked(pool: ArqRedis, queue: JobQueue, job_id: str) -> ParkedJob:
    await pool.enqueue_job("work", _job_id=job_id)
    await queue.put_back(job_id, timestamp_ms() + 60_000.5)
    return ParkedJob("arq:queue", job_id, timestamp_ms())


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


# -- admission -------------------------------------------------------------------------------------


@limited(ONE)
async def work(ctx: dict[Any, Any]) -> None: ...


@limited(ConcurrencyLimit(ONE.by, 1, on_conflict=ConflictResolution.CANCEL))
async def at_once(ctx: dict[Any, Any]) -> None: ...


async def free(ctx: dict[Any, Any]) -> None: ...


async def test_admission_grants_parks_and_refuses(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    refused: list[tuple[str, JobCall, int, Exception]] = []

    async def record_refusal(*given: Any) -> None:
        refused.append(given)

    functions = {each.__name__: func(each) for each in (work, at_once, free)}
    async with JobGate(MemoryStore(), "arq:test", lambda notice: None) as gate:
        admission = Admission(
            gate=gate,
            queue=queue,
            redis_id="test",
            background=background,
            functions=functions,
            deserializer=None,
            allows_aborts=False,
            expires_extra=None,
            on_lost=lambda run, loss: None,
            dispatch=lambda parked, ticket: None,
            record_refusal=record_refusal,
        )

        async def admit(name: str) -> tuple[bool, JobRun]:
            await pool.enqueue_job(name, _job_id=name)
            (job,) = await queue.fetch([(name, None)], 10.0)
            assert isinstance(job, FetchedJob)
            run = JobRun(job.job_id, int(job.score))
            return await admission.admit(job, run), run

        admitted, run = await admit("free")
        assert (admitted, run.lease) == (True, None)
        admitted, run = await admit("work")
        assert admitted
        assert isinstance(run.lease, Lease)
        await pool.delete("arq:in-progress:work")
        admitted, again = await admit("work")
        assert (admitted, again.lease) == (False, None), "its first delivery runs"
        admitted, _ = await admit("at_once")
        assert not admitted
        assert [(job_id, type(error)) for job_id, *_, error in refused] == [
            ("at_once", LimitReached)
        ]
        functions["other"] = func(work, name="other")
        admitted, waiting = await admit("other")
        assert (admitted, waiting.settled) == (False, True)
        assert is_parked(await queue.score("other") or 0)
        await run.lease.release()


# -- a run -----------------------------------------------------------------------------------------


async def lease_of(gate: JobGate) -> Lease:
    lease = await gate.admit(Job("ticket", ONE, ArgumentView({})))
    assert isinstance(lease, Lease)
    return lease


async def test_the_runner_releases_a_lease_when_its_job_has_ended(
    queue: JobQueue, background: BackgroundTasks
) -> None:
    gate = JobGate(MemoryStore(), "arq:test", lambda notice: None)
    lease = await lease_of(gate)
    ran: list[tuple[str, int]] = []

    async def admit(job: FetchedJob, run: JobRun) -> bool:
        run.lease = lease
        return True

    async def run_in_arq(job_id: str, score: int) -> None:
        assert (runner.admitted, runner.admitting) == (1, 0)
        ran.append((job_id, score))

    runner = JobRunner(
        jobs=Jobs(), queue=queue, background=background, admit=admit, run_in_arq=run_in_arq
    )
    await asyncio.create_task(runner.run(FetchedJob("a", 5.0, b"", -1, 0, False)))
    await background.done(5.0)
    assert ran == [("a", 5)]
    assert "released" in repr(lease)
    assert (runner.admitted, runner.ending) == (0, 0)
    await gate.aclose()


async def test_the_runner_puts_a_job_back_that_a_signal_cancelled(
    pool: ArqRedis, queue: JobQueue, background: BackgroundTasks
) -> None:
    await pool.enqueue_job("work", _job_id="a")
    (job,) = await queue.fetch([("a", None)], 10.0)
    assert isinstance(job, FetchedJob)
    running = asyncio.Event()

    async def admit(job: FetchedJob, run: JobRun) -> bool:
        return True

    async def run_in_arq(job_id: str, score: int) -> None:
        running.set()
        await asyncio.Event().wait()

    runner = JobRunner(
        jobs=Jobs(), queue=queue, background=background, admit=admit, run_in_arq=run_in_arq
    )
    task = asyncio.create_task(runner.run(job))
    await running.wait()
    task.cancel()
    await asyncio.wait([task])
    assert await queue.due(10) == [b"a"]
    assert not await pool.exists("arq:in-progress:a")


async def test_the_runner_stops_the_body_of_a_lost_lease(
    queue: JobQueue, background: BackgroundTasks
) -> None:
    jobs = Jobs()
    runner: Any = JobRunner(
        jobs=jobs, queue=queue, background=background, admit=None, run_in_arq=None
    )
    runner.on_lost(JobRun("a", 1), Loss.PREEMPTED)
    runner.on_lost(JobRun("b", 1), Loss.EXPIRED)
    runner.on_lost(JobRun("c", 1, ended=True), Loss.EXPIRED)
    assert jobs.cancelled == [("a", True), ("b", False)]


async def test_a_run_whose_lease_is_lost_for_good_fails_and_another_is_cancelled() -> None:
    gate = JobGate(MemoryStore(), "arq:test", lambda notice: None)
    lease = await lease_of(gate)

    async def body(ctx: dict[Any, Any]) -> None:
        raise AssertionError("a lost lease starts no body")

    for loss, error in ((Loss.EVICTED, JobExecutionFailed), (Loss.EXPIRED, asyncio.CancelledError)):
        run = JobRun("a", 1, lease=lease, loss=loss)
        with pytest.raises(error):
            await run.run_body(body, ({},), {})
        assert run.ended
    await lease.release()
    await gate.aclose()


async def test_a_limited_function_runs_in_the_run_that_is_current() -> None:
    seen: list[Any] = []

    @limited(ConcurrencyLimit(LIMIT_BY.constant("seen"), 1))
    async def body(ctx: dict[Any, Any]) -> None:
        seen.append(ctx.get("lease"))

    run = JobRun("a", 1)
    current_run.set(run)
    await body({})
    assert seen == [None]
    assert (run.begun, run.ended) == (True, True)


# -- the jobs of arq's worker ----------------------------------------------------------------------


async def test_the_jobs_of_a_worker_are_counted_as_arq_counts_them() -> None:
    worker = Worker([func(free)], max_jobs=2, handle_signals=False)
    jobs = WorkerJobs(worker)
    jobs.reserve(1)
    assert (jobs.free_slots(), worker.job_counter) == (1, 1)
    ended: list[bool] = []

    async def job() -> None: ...

    jobs.start("a", job(), ended.append)
    assert jobs.unfinished() == set(worker.tasks) == {"a"}
    await until(lambda: ended == [False], "it ends")
    assert worker.tasks == {}
    jobs.release()
    worker.allow_pick_jobs = False
    assert jobs.free_slots() == 0
