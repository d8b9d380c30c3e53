"""SAQ's sweep beside a gate: what stands at the gate is nobody's to abort; what died there runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from saq.job import Status
from saq.queue.redis import RedisQueue

from limiter_saq import ConcurrencyLimit, LimitedQueue, _queue, _sweep

from .conftest import Shop, until

ONE = ConcurrencyLimit("user", max_concurrent=1)


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """Sweeps look again after a second."""
    for module in (_queue, _sweep):
        monkeypatch.setattr(module, "GRACE", 1.0, raising=False)
    return 1.0


class Gate:
    """The gate of a queue, at which jobs stand until they may go on."""

    def __init__(self, queue: LimitedQueue) -> None:
        self.stands, self.go_on = asyncio.Event(), asyncio.Event()
        gate = queue._opened()[0]
        self._admit, gate.admit = gate.admit, self.admit  # type: ignore[method-assign]

    async def admit(self, *arguments: Any) -> Any:
        self.stands.set()
        await self.go_on.wait()
        return await self._admit(*arguments)


async def sweep(queue: RedisQueue) -> list[str]:
    await queue.redis.delete("saq:default:sweep")
    return await queue.sweep(abort=0.5)


async def test_a_job_at_the_gate_is_not_swept(shop: Shop) -> None:
    queue, other = shop.queue(ONE), shop.queue(ONE)
    gate = Gate(queue)
    shop.work(queue)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    sweeping = asyncio.create_task(sweep(other))
    await until("the sweep looked", lambda: shop.server.admin.exists("saq:default:sweep"))
    await asyncio.sleep(0.1)  # and acts on it, if it does
    gate.go_on.set()
    assert await sweeping == []
    await job.refresh(5.0)
    assert (job.status, job.attempts) == (Status.COMPLETE, 1)
    assert shop.ran == ["only"]


async def test_a_job_that_is_parked_at_the_gate_is_not_swept_when_it_stands_there_again(
    shop: Shop,
) -> None:
    shop.gate.clear()
    queue = shop.queue(ONE)
    shop.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: shop.running)
    gate = Gate(queue)
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await gate.stands.wait()
    sweeping = asyncio.create_task(sweep(queue))
    await until("the sweep looked", lambda: shop.server.admin.exists("saq:default:sweep"))
    gate.go_on.set()
    parked = ("saq:default:incomplete", 1, "inf")
    await until("it is parked", lambda: shop.server.admin.zcount(*parked) == 1)
    gate.stands.clear()
    gate.go_on.clear()
    assert await queue._wake(second.id)
    await gate.stands.wait()
    assert await sweeping == []
    gate.go_on.set()
    shop.gate.set()
    await second.refresh(5.0)
    assert (second.status, second.attempts) == (Status.COMPLETE, 1)
    assert shop.ran == ["first", "second"]


async def test_a_job_whose_worker_died_at_the_gate_runs_at_its_first_attempt(shop: Shop) -> None:
    queue = shop.queue(ONE)
    job = await queue.enqueue("job", user=1, name="left")
    assert job is not None
    assert await RedisQueue.dequeue(queue) is not None  # and its worker is no more
    assert await sweep(queue) == [job.id]
    shop.work(queue)
    await job.refresh(5.0)
    assert (job.status, job.attempts, job.error) == (Status.COMPLETE, 1, None)
    assert shop.ran == ["left"]


async def test_a_job_that_stood_too_long_at_the_gate_runs_once(shop: Shop) -> None:
    """A sweep put it back, another worker ran it: who comes late does not begin it."""
    queue, other = shop.queue(ONE), shop.queue(ONE)
    gate = Gate(queue)
    shop.work(queue, concurrency=1)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    assert await sweep(other) == [job.id]
    shop.work(other)
    await job.refresh(5.0)
    gate.go_on.set()
    await until("the slot is back", lambda: not shop.left())
    after = await queue.enqueue("job", user=1, name="after")
    assert after is not None
    await after.refresh(5.0)
    assert shop.ran == ["only", "after"]
    assert (job.status, job.attempts) == (Status.COMPLETE, 1)


async def test_a_job_that_stood_long_at_the_gate_is_kept_from_the_sweep(
    shop: Shop, grace: float
) -> None:
    queue, other = shop.queue(ONE), shop.queue(ONE)
    gate = Gate(queue)
    shop.work(queue, concurrency=1)
    job = await queue.enqueue("job", user=1, name="only")
    assert job is not None
    await gate.stands.wait()
    await asyncio.sleep(grace / 2)
    sweeping = asyncio.create_task(sweep(other))
    await until("the sweep looked", lambda: shop.server.admin.exists("saq:default:sweep"))
    gate.go_on.set()
    assert await sweeping == []
    await job.refresh(5.0)
    assert (job.status, job.attempts, shop.ran) == (Status.COMPLETE, 1, ["only"])
