"""Many things at once: signals and aborts at any moment. Nothing is stuck, lost, or run twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job

from limiter_redis import RedisStore
from tests.redis._tools import until, until_now

from ._tools import until_idle
from ._worker_processes import WorkerProcesses

NEVER = {"in_progress": 600, "lease": 60, "claim": 60}
"""Times far beyond the patience of a test: what a shutdown leaves behind would be stuck."""


@pytest.mark.parametrize(
    ("limit", "signals"), [(2, 6), pytest.param(1, 40, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(180)
async def test_signals_at_any_moment(
    pool: ArqRedis, processes: WorkerProcesses, limit: int, signals: int
) -> None:
    dice = random.Random(limit)
    for number in range(100):
        await pool.enqueue_job("work", number, 0.02)
    settings = {"limit": limit, "worker": {"max_tries": 1000, "max_jobs": 5}, **NEVER}
    for _ in range(signals):
        before = len(processes.notes())
        worker = processes.start(**settings)
        until_now(lambda before=before: len(processes.notes()) > before, "it works")
        await asyncio.sleep(dice.uniform(0, 0.1))
        worker.signal(dice.choice([signal.SIGTERM, signal.SIGINT]))
        assert worker.ended() == 0, worker.errors()
        assert "Traceback" not in worker.errors()
        assert not processes.server.admin.keys("arq:in-progress:*"), worker.errors()
    processes.start(**settings)
    processes.wait_for_ends(100, patience=60)
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all are finished")
    assert processes.most_at_once() <= limit


@pytest.mark.timeout(120)
async def test_aborts_at_any_moment(
    pool: ArqRedis, processes: WorkerProcesses, store: RedisStore
) -> None:
    dice = random.Random(1)
    jobs = [await pool.enqueue_job("work", number, 0.03) for number in range(60)]
    for _ in range(2):
        processes.start(limit=2, worker={"allow_abort_jobs": True})

    async def abort(job: Job) -> bool:
        await asyncio.sleep(dice.uniform(0.4, 1.6))
        return await job.abort(timeout=20, poll_delay=0.05)

    chosen = dice.sample([job for job in jobs if job is not None], 20)
    aborted = await asyncio.gather(*map(abort, chosen))
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all are finished")
    results = await asyncio.gather(*[job.result_info() for job in jobs if job is not None])
    assert all(result is not None for result in results)
    outcomes = Counter(type(result.result) for result in results if result is not None)
    assert outcomes[asyncio.CancelledError] == sum(aborted)
    assert outcomes[type(None)] == 60 - sum(aborted)
    ends = Counter(processes.names("end"))
    assert max(ends.values()) == 1
    await until_idle(store)
    await until(
        lambda: not processes.server.admin.keys("arq:in-progress:*"), "nothing is in progress"
    )
