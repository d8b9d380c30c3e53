"""SAQ's sweep beside a gate: jobs at the gate are not aborted; those of dead workers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from saq.job import Status
from saq.queue.redis import RedisQueue

from limiter_saq import ConcurrencyLimit, LimitedQueue, _sweep

from .conftest import SaqSetup, until

ONE = ConcurrencyLimit("user", max_concurrent=1)
LOCK = "saq:default:sweep"
UNTOUCHED = 0.5


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps look again after a second."""
    monkeypatch.setattr(_sweep, "UNTOUCHED", UNTOUCHED)
    monkeypatch.setattr(_sweep, "GRACE", 1.0)


class Barrier:
    """A method that does nothing before it may go on."""

    def __init__(self, owner: Any, method: str) -> None:
        self.stands, self.go_on = asyncio.Event(), asyncio.Event()
        self._call = getattr(owner, method)
        setattr(owner, method, self.call)

    async def call(self, *given: Any, **named: Any) -> Any:
        self.stands.set()
        await self.go_on.wait()
        return await self._call(*given, **named)


Block = Callable[[Any, str], Barrier]
Sweep = Callable[[LimitedQueue], Any]


@pytest.fixture
async def block(setup: SaqSetup) -> AsyncIterator[Block]:
    """Put barriers before methods; they open at the end, or the workers could not stop."""
    barriers: list[Barrier] = []

    def put(owner: Any, method: str) -> Barrier:
        barriers.append(Barrier(owner, method))
        return barriers[-1]

    yield put
    for barrier in barriers:
        barrier.go_on.set()


@pytest.fixture
async def begin_sweep(setup: SaqSetup) -> AsyncIterator[Sweep]:
    """Begin sweeps that look at once; each returns the jobs that it swept."""
    sweeps: list[asyncio.Task[list[str]]] = []

    async def begin(queue: LimitedQueue) -> asyncio.Task[list[str]]:
        await queue.redis.delete(LOCK)
        sweeps.append(asyncio.create_task(queue.sweep(abort=0.5)))
        await until("the sweep looked", lambda: setup.server.admin.exists(LOCK))
        return sweeps[-1]

    yield begin
    for sweep in sweeps:
        sweep.cancel()
    await asyncio.gather(*sweeps, return_exceptions=True)


async def work(setup: SaqSetup, queue: LimitedQueue, **settings: Any) -> None:
    """Start a worker, and have the sweep behind us with which it begins."""
    setup.work(queue, **settings)
    await until("the worker swept", lambda: setup.server.admin.exists(LOCK))


def gate_of(queue: LimitedQueue) -> Any:
    return queue._open()[0]


async def test_a_job_at_the_gate_is_not_swept(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    queue, other = setup.queue(ONE), setup.queue(ONE)
    gate = block(gate_of(queue), "admit")
    await work(setup, queue)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    sweep = await begin_sweep(other)
    gate.go_on.set()
    assert await sweep == []
    await job.refresh(5.0)
    assert (job.status, job.attempts) == (Status.COMPLETE, 1)
    assert setup.ran == ["only"]


async def test_a_job_that_is_parked_at_the_gate_is_not_swept_when_it_stands_there_again(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    setup.gate.clear()
    queue = setup.queue(ONE)
    await work(setup, queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running)
    gate = block(gate_of(queue), "admit")
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await gate.stands.wait()
    sweep = await begin_sweep(queue)
    gate.go_on.set()
    parked = ("saq:default:incomplete", 1, "inf")
    await until("it is parked", lambda: setup.server.admin.zcount(*parked) == 1)
    gate.stands.clear()
    gate.go_on.clear()
    assert await queue._wake(second.id)
    await gate.stands.wait()
    assert await sweep == []
    gate.go_on.set()
    setup.gate.set()
    await second.refresh(5.0)
    assert (second.status, second.attempts) == (Status.COMPLETE, 1)
    assert setup.ran == ["first", "second"]


async def test_a_job_whose_worker_died_at_the_gate_runs_though_it_has_no_retries(
    setup: SaqSetup, begin_sweep: Sweep
) -> None:
    queue = setup.queue(ONE)
    job = await queue.enqueue("job", user=1, name="left", retries=0)
    assert job is not None
    assert await RedisQueue.dequeue(queue) is not None  # and its worker is no more
    assert await (await begin_sweep(queue)) == [job.id]
    setup.work(queue)
    await job.refresh(5.0)
    assert (job.status, job.attempts, job.error) == (Status.COMPLETE, 1, None)
    assert setup.ran == ["left"]


async def test_a_job_that_stood_too_long_at_the_gate_runs_once(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    """A sweep put it back, another worker ran it: the late one does not begin it."""
    queue, other = setup.queue(ONE), setup.queue(ONE)
    gate = block(gate_of(queue), "admit")
    await work(setup, queue, concurrency=1)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    assert await (await begin_sweep(other)) == [job.id]
    setup.work(other)
    await job.refresh(5.0)
    gate.go_on.set()
    await until("the slot is back", lambda: not setup.left())
    after = await queue.enqueue("job", user=1, name="after")
    assert after is not None
    await after.refresh(5.0)
    assert setup.ran == ["only", "after"]
    assert (job.status, job.attempts) == (Status.COMPLETE, 1)


async def test_a_job_that_stood_long_at_the_gate_is_kept_until_it_begins(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    queue, other = setup.queue(ONE), setup.queue(ONE)
    gate = block(gate_of(queue), "admit")
    beginning = block(queue, "_update")
    await work(setup, queue, concurrency=1)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    loop = asyncio.get_running_loop()
    long = loop.time() + UNTOUCHED
    await until("it stood there for long", lambda: loop.time() > long)
    sweep = await begin_sweep(other)
    gate.go_on.set()
    await beginning.stands.wait()
    assert await sweep == []
    beginning.go_on.set()
    await job.refresh(5.0)
    assert (job.status, job.attempts, setup.ran) == (Status.COMPLETE, 1, ["only"])


async def test_a_job_that_began_after_it_was_put_back_runs_once(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    """Its worker stood still; another one leaves the job to it."""
    setup.gate.clear()
    two = ConcurrencyLimit("user", max_concurrent=2)
    queue, other = setup.queue(two), setup.queue(two)
    beginning = block(queue, "_update")
    await work(setup, queue, concurrency=1)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await beginning.stands.wait()
    assert await (await begin_sweep(other)) == [job.id]
    setup.work(other, concurrency=1)
    parked = ("saq:default:incomplete", 1, "inf")
    await until("the other has parked it", lambda: setup.server.admin.zcount(*parked) == 1)
    beginning.go_on.set()
    await until("it runs", lambda: setup.running)
    assert await other._wake(job.id)
    after = await other.enqueue("job", user=1, name="after")
    assert after is not None
    await until("the other worker runs the next", lambda: "after" in setup.running)
    assert sorted(setup.running) == ["after", "only"]
    setup.gate.set()
    await job.refresh(5.0)
    await after.refresh(5.0)
    assert (job.status, job.attempts) == (Status.COMPLETE, 1)
    assert sorted(setup.ran) == ["after", "only"]


async def test_two_sweeps_that_saw_the_same_job_put_it_back_once(
    setup: SaqSetup, block: Block, begin_sweep: Sweep
) -> None:
    """When the second acts, another worker has the job at its gate."""
    queue, other = setup.queue(ONE), setup.queue(ONE)
    job = await queue.enqueue("job", user=1, name="left")
    assert job is not None
    assert await RedisQueue.dequeue(queue) is not None  # and its worker is no more
    first = await begin_sweep(queue)
    second = await begin_sweep(other)
    acting = block(other.redis, "eval")
    assert await first == [job.id]
    gate = block(gate_of(queue), "admit")
    setup.work(queue)
    await gate.stands.wait()
    await acting.stands.wait()
    acting.go_on.set()
    assert await second == []
    gate.go_on.set()
    await job.refresh(5.0)
    assert (job.status, job.attempts, setup.ran) == (Status.COMPLETE, 1, ["left"])


async def test_a_sweep_that_ends_midway_loses_no_job(setup: SaqSetup, begin_sweep: Sweep) -> None:
    """It has aborted a job of a dead worker, and did not put it back."""
    queue = setup.queue(ONE)
    job = await queue.enqueue("job", user=1, name="left", retries=5, timeout=1)
    assert job is not None
    taken = await RedisQueue.dequeue(queue)
    assert taken is not None
    taken.started, taken.attempts = 1, 1  # and its worker is no more
    await queue.update(taken, status=Status.ACTIVE)
    ending = await begin_sweep(queue)
    await until("it is aborted", lambda: setup.server.admin.exists(job.abort_id))
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    setup.server.admin.delete(LOCK)
    assert await (await begin_sweep(setup.queue(ONE))) == [job.id]
    setup.work(queue)
    await job.refresh(10.0)
    assert (job.status, setup.ran) == (Status.COMPLETE, ["left"])
