"""Worker processes killed at every point, and servers that start again: no job lost, none too many.

`in_progress` is the time after which arq gives a job of a dead worker to another, 310 s by default.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool

from limiter_redis import RedisStore
from tests.redis._servers import Process
from tests.redis._tools import until_now, until_true

from ._worker_processes import WorkerProcesses

JOBS = 6
SHORT = {"in_progress": 1.0, "lease": 1.0, "claim": 1.0}
BEFORE_THE_RESULT = {
    "before the release",
    "after the release",
    "before the next is brought forward",
    "before the result",
}


async def enqueue(pool: ArqRedis, count: int, seconds: float = 0.0) -> None:
    for number in range(count):
        await pool.enqueue_job("work", number, seconds)


async def all_is_given_back(processes: WorkerProcesses) -> None:
    """No holder, no ticket, no in-progress mark is left."""
    store = RedisStore(processes.server.url)
    face = store.async_face()
    for key in [key async for key in face.keys()]:
        state = await face.inspect(key)
        assert (state.in_use, state.waiting) == (0, 0), state
    await store.aclose()
    until_now(lambda: not processes.server.admin.keys("arq:in-progress:*"), "no job is in progress")


@pytest.mark.parametrize(
    "dies",
    [
        "before the park",
        "after the park",
        "with the slot",
        "before the release",
        "after the release",
        "before the next is brought forward",
        "before the result",
        "after the result",
    ],
)
async def test_killed_at_a_point(pool: ArqRedis, processes: WorkerProcesses, dies: str) -> None:
    await enqueue(pool, JOBS, 0.01)
    victim = processes.start(dies=dies, **SHORT)
    assert victim.ended() == -signal.SIGKILL, victim.errors()
    processes.start(**SHORT)
    processes.wait_for_ends(JOBS)
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all are finished")
    assert processes.most_at_once() == 1
    twice = {name: times for name, times in Counter(processes.names("end")).items() if times > 1}
    # A body that ended in a worker that died before arq noted it runs again, as under arq alone.
    assert len(twice) <= (dies in BEFORE_THE_RESULT)
    await all_is_given_back(processes)


@pytest.mark.parametrize("dies", ["before the park", "with the slot"])
async def test_a_dead_worker_s_mark_does_not_hold_up_the_line(
    pool: ArqRedis, processes: WorkerProcesses, dies: str
) -> None:
    """Its jobs are in progress for arq, which waits five minutes; the others pass them by."""
    long = {"in_progress": 600, "lease": 1.5, "claim": 1.0}
    await enqueue(pool, JOBS, 0.01)
    victim = processes.start(dies=dies, worker={"max_jobs": 3}, **long)
    assert victim.ended() == -signal.SIGKILL, victim.errors()
    processes.start(**long)
    # Three never got as far as asking for a slot, or had it: these are arq's to give to another.
    await until_true(lambda: nobody_waits(processes), "all that asked for a slot have run")
    assert len(processes.names("end")) >= JOBS - 1
    assert processes.most_at_once() == 1


async def nobody_waits(processes: WorkerProcesses) -> bool:
    return processes.parked() == 0 and len(processes.names("end")) >= JOBS - 1


async def test_killed_while_it_runs(pool: ArqRedis, processes: WorkerProcesses) -> None:
    await enqueue(pool, 3, 0.5)
    victim = processes.start(**SHORT)
    processes.wait_for("begin", 0)
    processes.start(**SHORT)
    victim.kill()
    processes.wait_for_ends(3)
    assert processes.most_at_once() == 1
    assert Counter(processes.names("begin")) == {0: 2, 1: 1, 2: 1}
    await all_is_given_back(processes)


@pytest.mark.parametrize(
    ("limit", "jobs", "kills"),
    [
        (2, 25, 3),
        pytest.param(1, 60, 8, marks=pytest.mark.slow),
        pytest.param(2, 60, 8, marks=pytest.mark.slow),
        pytest.param(3, 60, 8, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(120)
async def test_random_kills(
    pool: ArqRedis, processes: WorkerProcesses, limit: int, jobs: int, kills: int
) -> None:
    dice = random.Random(limit)
    settings = {"limit": limit, **SHORT}
    await enqueue(pool, jobs, 0.03)
    alive = [processes.start(**settings) for _ in range(2)]
    for _ in range(kills):
        goal = min(jobs - 2, len(processes.names("end")) + dice.randint(1, 5))
        until_now(lambda goal=goal: len(processes.names("end")) >= goal, f"{goal} jobs end")
        alive.pop(0).kill()
        alive.append(processes.start(**settings))
    processes.wait_for_ends(jobs, patience=60)
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all are finished")
    assert processes.most_at_once() <= limit
    await all_is_given_back(processes)


@pytest.mark.timeout(120)
async def test_the_server_is_killed_and_comes_back(own_server: Callable[..., Process]) -> None:
    """With an append-only file neither arq's queue nor the tickets are lost; workers restart."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    processes = WorkerProcesses(server)
    try:
        pool = await create_pool(RedisSettings.from_dsn(server.url))
        await enqueue(pool, 12, 0.5)
        await pool.aclose()
        processes.start(**SHORT)
        processes.wait_for_ends(2)
        until_now(lambda: processes.parked() >= 5, "jobs are parked")
        server.kill()
        for worker in processes.workers:  # arq's worker does not outlive its Redis
            worker.ended()
        server.start()
        processes.start(**SHORT)
        processes.wait_for_ends(12)
        # A body notes its end before its slot is released.
        until_now(lambda: server.admin.zcard("arq:queue") == 0, "all are finished")
        assert processes.most_at_once() == 1
        await all_is_given_back(processes)
    finally:
        processes.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_store_of_its_own_is_killed_and_comes_back(
    pool: ArqRedis, processes: WorkerProcesses, own_server: Callable[..., Process]
) -> None:
    """arq's Redis runs on, and so do the workers."""
    store_server = own_server("--appendonly", "yes", "--appendfsync", "always")
    settings = {"limiter": store_server.url, "in_progress": 600, "lease": 5.0, "claim": 1.0}
    await enqueue(pool, 15, 0.2)
    for _ in range(2):
        processes.start(**settings)
    for ended in (2, 6):
        processes.wait_for_ends(ended)
        store_server.restart()
    processes.wait_for_ends(15)
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all are finished")
    assert processes.most_at_once() == 1
    assert sorted(processes.names("begin")) == list(range(15)), "each once"
    assert {note.job_try for note in processes.notes()} == {1}


async def test_a_second_delivery_of_a_job_that_runs_starts_no_second_body(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    """arq's mark of a running job lapses: there is room under the limit, but the job is known."""
    await enqueue(pool, 1, 2.0)
    for _ in range(2):
        processes.start(limit=5, in_progress=0.3)
    processes.wait_for_ends(1)
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all is finished")
    assert processes.names("begin") == [0]
    await all_is_given_back(processes)


async def test_a_second_delivery_does_not_delay_a_retry(
    pool: ArqRedis, processes: WorkerProcesses
) -> None:
    """It was parked for the rest of the first try's lease, which is over before."""
    await pool.enqueue_job("retry", "job", 3, 1.0)
    for _ in range(2):
        processes.start(limit=5, in_progress=0.3, lease=60)
    processes.wait_for("begin", "job")
    until_now(lambda: processes.parked() == 1, "a second delivery is parked")
    until_now(lambda: processes.server.admin.zcard("arq:queue") == 0, "all is finished")
    assert [note.job_try for note in processes.notes("begin")] == [1, 2, 3]


async def test_data_of_the_store_is_lost(pool: ArqRedis, processes: WorkerProcesses) -> None:
    """Jobs that wait come back by themselves."""
    await enqueue(pool, 4, 0.1)
    await pool.enqueue_job("work", "long", 1000, _job_id="long", _defer_by=-10)
    worker = processes.start(lease=60, backstop=2)
    processes.wait_for("begin", "long")
    until_now(lambda: processes.parked() == 4, "four are parked")
    worker.kill()
    await pool.zrem("arq:queue", "long")
    for name in processes.server.admin.scan_iter("{limiter*"):
        processes.server.admin.delete(name)
    processes.start(lease=60, backstop=2)
    processes.wait_for_ends(4)
    assert processes.most_at_once() == 1
