"""Real workers, `python -m limiter_arq`: order, waiting, hand-off, shutdown."""

from __future__ import annotations

import asyncio
import signal

import pytest
from arq.connections import ArqRedis

from tests.redis._tools import until_now

from ._worker_processes import WorkerProcesses


async def enqueue(pool: ArqRedis, count: int, seconds: float = 0.0, pause: float = 0.0) -> None:
    for number in range(count):
        await pool.enqueue_job("work", number, seconds, _job_id=f"job-{number:04}")
        await asyncio.sleep(pause)


async def test_one_at_a_time_in_the_order_of_enqueueing(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await enqueue(pool, 30, 0.005, pause=0.002)  # arq's order is one of milliseconds
    processes.start(worker={"poll_delay": 30})  # no job is started by a poll
    processes.wait_for_ends(30)
    assert processes.names("begin") == list(range(30))
    assert processes.most_at_once() == 1
    assert {note.job_try for note in processes.notes()} == {1}
    assert not processes.server.admin.keys("arq:retry:*")


async def test_two_workers_share_a_limit(pool: ArqRedis, processes: WorkerProcesses) -> None:
    await enqueue(pool, 40, 0.01)
    for _ in range(2):
        processes.start(limit=3)
    processes.wait_for_ends(40)
    assert processes.most_at_once() <= 3
    assert sorted(processes.names("begin")) == list(range(40))


async def test_unlimited_jobs_pass_by_a_thousand_that_wait(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await pool.enqueue_job("work", "long", 1000)
    await enqueue(pool, 1000)
    await pool.enqueue_job("free", "free")
    processes.start(worker={"poll_delay": 0.5})
    processes.wait_for("end", "free")
    assert processes.names("begin") == ["long", "free"]


async def test_a_worker_of_one_slot_is_not_slowed_by_its_polls(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await enqueue(pool, 20, pause=0.002)
    processes.start(worker={"max_jobs": 1, "poll_delay": 30})
    processes.wait_for_ends(20)
    assert processes.names("begin") == list(range(20))


async def test_queues_share_a_limit_and_wake_each_other(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    for number in range(20):
        await pool.enqueue_job("work", number, 0.005, _queue_name=f"queue-{number % 2}")
    for queue in ("queue-0", "queue-1"):
        processes.start(worker={"queue_name": queue, "poll_delay": 5}, claim=60)
    processes.wait_for_ends(20)
    assert processes.most_at_once() == 1
    assert len({note.pid for note in processes.notes()}) == 2


async def test_burst_mode_waits_for_jobs_that_wait(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await enqueue(pool, 10, 0.01, pause=0.002)
    worker = processes.start(worker={"burst": True})
    assert worker.ended() == 0, worker.errors()
    assert processes.names("end") == list(range(10))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_hands_the_slot_on(
    pool: ArqRedis, processes: WorkerProcesses, number: int
) -> None:
    await pool.enqueue_job("work", "long", 1000, _job_id="long")
    worker = processes.start(worker={"poll_delay": 0.05})
    processes.wait_for("begin", "long")
    await enqueue(pool, 3)
    until_now(lambda: processes.parked() == 3, "three are parked")
    worker.signal(number)
    assert worker.ended() == 0, worker.errors()
    assert not processes.server.admin.keys("arq:in-progress:*")
    assert processes.names("begin") == ["long"], "nothing starts in a worker that shuts down"
    assert "Traceback" not in worker.errors()
    await pool.delete("arq:job:long")  # it would run a second time, first
    await pool.zrem("arq:queue", "long")
    processes.start(lease=60)
    processes.wait_for_ends(3)
    assert processes.most_at_once() == 1


async def test_a_signal_lets_bodies_end_where_arq_does(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await pool.enqueue_job("work", "long", 1.0)
    worker = processes.start(worker={"job_completion_wait": 10})
    processes.wait_for("begin", "long")
    await enqueue(pool, 3)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.errors()
    assert processes.names("end") == ["long"]
    assert processes.names("begin") == ["long"]
    processes.start()
    processes.wait_for_ends(4)


async def test_a_blocked_event_loop_keeps_its_slot(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    await pool.enqueue_job("block", "first", 3.0)
    processes.start(lease=1.0)
    processes.wait_for("begin", "first")
    await enqueue(pool, 1)
    processes.start(lease=1.0)
    processes.wait_for_ends(2)
    assert processes.most_at_once() == 1
