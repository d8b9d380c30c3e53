"""A worker of SAQ that stops, a queue that is closed, a job that is aborted: nothing is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from saq.job import Status

from limiter_core import Limiter
from limiter_saq import LIMIT_BY, ConcurrencyLimit, ConflictResolution
from tests.redis._servers import PATIENCE
from tests.redis._tools import until_true

from .conftest import SaqSetup, until

ONE = ConcurrencyLimit("user", max_concurrent=1)


def parked(setup: SaqSetup) -> int:
    return int(setup.server.admin.zcount("saq:default:incomplete", 1, "inf"))


async def test_a_worker_that_only_lets_its_bodies_end_leaves_the_line_to_others(
    setup: SaqSetup,
) -> None:
    """Jobs that no worker fetches block no others, however long the bodies take."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    # When it has stopped to fetch, SAQ waits for these, too.
    timers = {"sweep": 1, "worker_info": 1}
    worker = setup.work(queue, concurrency=2, shutdown_grace_period_s=300, timers=timers)
    await queue.enqueue("job", user=1, name="first")
    await until("one runs", lambda: setup.running)
    await queue.enqueue("job", user=1, name="second")
    await until("the other waits", lambda: parked(setup) == 1)
    await queue.enqueue("job", user=2, name="third")
    await until("no worker is left to fetch", lambda: len(setup.running) == 2)
    async with Limiter(setup.server.url) as limiter:

        async def waiting() -> tuple[int, int]:
            seen = await limiter.inspect(ONE, {"user": 1})
            return seen.waiting, sum(each.waiting for each in seen.dormant)

        async def is_dormant() -> bool:
            return await waiting() == (0, 1)

        assert await waiting() == (1, 0)
        worker.event.set()  # as a signal does
        await until_true(is_dormant, "it is dormant")
    assert len(setup.running) == 2


@pytest.mark.parametrize("limits", [ONE, [ONE]])
async def test_a_worker_that_stops_leaves_no_slot_taken(setup: SaqSetup, limits: Any) -> None:
    setup.gate.clear()
    queue = setup.queue(limits)
    worker = setup.work(queue)
    for number in range(20):
        await queue.enqueue("job", user=1, name=number)
    await until("one runs and the others wait", lambda: setup.running and parked(setup) == 19)
    await worker.stop()
    await queue.disconnect()
    setup.gate.set()
    other = setup.queue(limits)
    setup.work(other)
    # What the stopping worker had taken and not begun SAQ brings back by its own sweep.
    await other.redis.delete("saq:default:sweep")
    await other.sweep()
    await until("all jobs ran", lambda: len(set(setup.ran)) == 20)
    assert setup.most == 1


async def test_an_aborted_job_that_was_just_woken_keeps_no_slot(setup: SaqSetup) -> None:
    queue = setup.queue(ONE, claim=10 * PATIENCE)
    await queue.enqueue("job", user=1, name="first")
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    first = await queue.dequeue(timeout=PATIENCE)
    assert first is not None
    assert await queue.dequeue(timeout=0.1) is None
    assert parked(setup) == 1
    await queue.finish(first, Status.COMPLETE)
    await until("the second is woken", lambda: not parked(setup))
    await queue.abort(second, "no longer needed")
    assert second.status is Status.ABORTED
    await queue.enqueue("job", user=1, name="third")
    third = await queue.dequeue(timeout=PATIENCE)
    assert third is not None
    assert third.kwargs is not None
    assert third.kwargs["name"] == "third"


async def test_disconnecting_hands_on_and_stays_closed(setup: SaqSetup) -> None:
    queue = setup.queue(ONE)
    await queue.enqueue("job", user=1, name="first")
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    assert await queue.dequeue(timeout=1.0) is not None
    assert await queue.dequeue(timeout=0.1) is None
    assert parked(setup) == 1
    setup.server.admin.zrem("saq:default:incomplete", second.id)  # it is gone: its turn is dropped
    async with asyncio.timeout(PATIENCE):
        await queue.disconnect()
    assert queue._opened is None
    assert not setup.left()


async def test_a_job_that_was_superseded_without_a_worker_ends_when_one_is_back(
    setup: SaqSetup,
) -> None:
    latest = ConcurrencyLimit(
        LIMIT_BY.constant("latest"), on_conflict=ConflictResolution.KEEP_LATEST
    )
    queue = setup.queue(latest)
    worker = setup.work(queue)
    async with Limiter(setup.server.url) as limiter:
        held = await limiter.acquire(latest)
        job = await queue.enqueue("job", name="old")
        assert job is not None
        await until("it waits", lambda: parked(setup) == 1)
        await worker.stop()
        await queue.disconnect()
        newer = asyncio.create_task(limiter.acquire(latest, timeout=PATIENCE))

        async def one_waits() -> bool:
            return (await limiter.inspect(latest)).waiting == 1

        await until_true(one_waits, "the newer call waits")
        await held.release()
        await (await newer).release()
        other = setup.queue(latest)
        setup.work(other)

        async def is_aborted() -> bool:
            stored = await other.job(job.key)
            return stored is not None and stored.status is Status.ABORTED

        await until_true(is_aborted, "the job is aborted")
    assert not setup.ran
