"""Admission and the runs of jobs, each built alone: with a queue in Redis, and without a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import JobExecutionFailed, Worker, func

from limiter_arq import ConcurrencyLimit, limited
from limiter_arq._admission import Admission
from limiter_arq._job_queue import FetchedJob, JobQueue, is_parked
from limiter_arq._job_run import JobRun, current_run
from limiter_arq._job_runner import JobRunner
from limiter_arq._worker_jobs import JobCall, WorkerJobs
from limiter_core import LIMIT_BY, ArgumentView, ConflictResolution, Lease, LimitReached
from limiter_core.jobs import BackgroundTasks, Job, JobGate
from limiter_core.requests import Loss
from limiter_memory import MemoryStore
from tests.redis._tools import until

from ._parts import Jobs
from ._tools import ONE

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
