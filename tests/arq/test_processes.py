"""Real workers, `python -m limiter_arq`: order, waiting, hand-off, shutdown."""

from __future__ import annotations

import asyncio
import signal

import pytest
from arq.connections import ArqRedis

from tests.redis._tools import until_now

from ._worker_processes import Crew


async def enqueue(pool: ArqRedis, count: int, seconds: float = 0.0, pause: float = 0.0) -> None:
    for number in range(count):
        await pool.enqueue_job("work", number, seconds, _job_id=f"job-{number:04}")
        await asyncio.sleep(pause)


async def test_one_at_a_time_in_the_order_of_enqueueing(pool: ArqRedis, crew: Crew) -> None:
    await enqueue(pool, 30, 0.005, pause=0.002)  # arq's order is one of milliseconds
    crew.start(worker={"poll_delay": 30})  # nobody is started by a poll
    crew.wait_for_ends(30)
    assert crew.names("begin") == list(range(30))
    assert crew.most_at_once() == 1
    assert {note.job_try for note in crew.notes()} == {1}
    assert not crew.server.admin.keys("arq:retry:*")


async def test_two_workers_share_a_limit(pool: ArqRedis, crew: Crew) -> None:
    await enqueue(pool, 40, 0.01)
    for _ in range(2):
        crew.start(limit=3)
    crew.wait_for_ends(40)
    assert crew.most_at_once() <= 3
    assert sorted(crew.names("begin")) == list(range(40))


async def test_unlimited_jobs_pass_by_a_thousand_that_wait(pool: ArqRedis, crew: Crew) -> None:
    await pool.enqueue_job("work", "long", 1000)
    await enqueue(pool, 1000)
    await pool.enqueue_job("free", "free")
    crew.start(worker={"poll_delay": 0.5})
    crew.wait_for("end", "free")
    assert crew.names("begin") == ["long", "free"]


async def test_a_worker_of_one_slot_is_not_slowed_by_its_polls(pool: ArqRedis, crew: Crew) -> None:
    await enqueue(pool, 20, pause=0.002)
    crew.start(worker={"max_jobs": 1, "poll_delay": 30})
    crew.wait_for_ends(20)
    assert crew.names("begin") == list(range(20))


async def test_queues_share_a_limit_and_wake_each_other(pool: ArqRedis, crew: Crew) -> None:
    for number in range(20):
        await pool.enqueue_job("work", number, 0.005, _queue_name=f"queue-{number % 2}")
    for queue in ("queue-0", "queue-1"):
        crew.start(worker={"queue_name": queue, "poll_delay": 5}, claim=60)
    crew.wait_for_ends(20)
    assert crew.most_at_once() == 1
    assert len({note.pid for note in crew.notes()}) == 2


async def test_burst_mode_waits_for_jobs_that_wait(pool: ArqRedis, crew: Crew) -> None:
    await enqueue(pool, 10, 0.01, pause=0.002)
    worker = crew.start(worker={"burst": True})
    assert worker.ended() == 0, worker.errors()
    assert crew.names("end") == list(range(10))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_hands_the_slot_on(pool: ArqRedis, crew: Crew, number: int) -> None:
    await pool.enqueue_job("work", "long", 1000, _job_id="long")
    worker = crew.start(worker={"poll_delay": 0.05})
    crew.wait_for("begin", "long")
    await enqueue(pool, 3)
    until_now(lambda: crew.parked() == 3, "three are parked")
    worker.signal(number)
    assert worker.ended() == 0, worker.errors()
    assert not crew.server.admin.keys("arq:in-progress:*")
    assert crew.names("begin") == ["long"], "nothing starts in a worker that shuts down"
    assert "Traceback" not in worker.errors()
    await pool.delete("arq:job:long")  # it would run a second time, first
    await pool.zrem("arq:queue", "long")
    crew.start(lease=60)
    crew.wait_for_ends(3)
    assert crew.most_at_once() == 1


async def test_a_signal_lets_bodies_end_where_arq_does(pool: ArqRedis, crew: Crew) -> None:
    await pool.enqueue_job("work", "long", 1.0)
    worker = crew.start(worker={"job_completion_wait": 10})
    crew.wait_for("begin", "long")
    await enqueue(pool, 3)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.errors()
    assert crew.names("end") == ["long"]
    assert crew.names("begin") == ["long"]
    crew.start()
    crew.wait_for_ends(4)


async def test_a_blocked_event_loop_keeps_its_slot(pool: ArqRedis, crew: Crew) -> None:
    await pool.enqueue_job("block", "first", 3.0)
    crew.start(lease=1.0)
    crew.wait_for("begin", "first")
    await enqueue(pool, 1)
    crew.start(lease=1.0)
    crew.wait_for_ends(2)
    assert crew.most_at_once() == 1
