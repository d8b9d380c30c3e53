"""A job that waits while its workers are replaced by those of another deployment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from saq.job import Job, Status

from limiter_core import Limiter
from limiter_redis import RedisStore
from limiter_saq import LIMIT_BY, ConcurrencyLimit

from .conftest import SaqSetup, until
from .test_saq import parked

CLAIM = 30.0
"""Seconds for which a slot would be kept for a job that does not take it."""

OLD = ConcurrencyLimit(LIMIT_BY.constant("old"), 1)
NEW = ConcurrencyLimit(LIMIT_BY.constant("new"), 1)


@pytest.fixture
async def limiter(setup: SaqSetup) -> AsyncIterator[Limiter]:
    """The limits of the jobs, as another program uses them."""
    async with Limiter(RedisStore(setup.server.url)) as limiter:
        yield limiter


class Deployments:
    """Old workers that fetch no more, and whose last job holds the slot of two that wait.

    Attributes:
        changed: the first that waits. Its function changes with the next deployment.
        stayed: the one behind it.
    """

    def __init__(self, setup: SaqSetup) -> None:
        self._setup = setup
        self.changed: Job
        self.stayed: Job

    async def begin(self) -> None:
        setup = self._setup
        setup.gate.clear()
        queue = setup.queue({"changes": OLD, "stays": OLD}, claim=CLAIM)
        worker = setup.work(
            queue,
            names=["changes", "stays", "free"],
            concurrency=2,
            shutdown_grace_period_s=300,
            timers={"sweep": 1, "worker_info": 1},  # SAQ waits for these, too
        )
        await queue.enqueue("stays")
        await until("it runs", lambda: setup.running)
        self.changed = await self._parked(queue, "changes", 1)
        self.stayed = await self._parked(queue, "stays", 2)
        await queue.enqueue("free")
        await until("no worker is left to fetch", lambda: len(setup.running) == 2)
        worker.event.set()  # as a signal does

    async def _parked(self, queue: Any, name: str, count: int) -> Job:
        job: Any = await queue.enqueue(name)
        await until("it waits", lambda: parked(self._setup) == count)
        return job

    def go_on(self, limits: Any, names: list[str]) -> Any:
        """Start new workers, and end the last job of the old ones."""
        queue = self._setup.queue(limits, claim=CLAIM)
        self._setup.work(queue, names=names)
        self._setup.gate.set()
        return queue


@pytest.fixture
async def deployments(setup: SaqSetup) -> Deployments:
    deployments = Deployments(setup)
    await deployments.begin()
    return deployments


@pytest.mark.parametrize(
    ("limits", "names", "status"),
    [
        ({"stays": OLD}, ["stays"], Status.FAILED),
        ({"stays": OLD}, ["stays", "changes"], Status.COMPLETE),
        ({"stays": OLD, "changes": NEW}, ["stays", "changes"], Status.COMPLETE),
    ],
    ids=["gone", "without a limit", "with another limit"],
)
async def test_its_slot_goes_to_the_next_at_once(
    setup: SaqSetup, deployments: Deployments, limits: Any, names: list[str], status: Status
) -> None:
    queue = deployments.go_on(limits, names)
    async with asyncio.timeout(CLAIM / 2):
        await until_ended(queue, deployments.stayed, Status.COMPLETE)
        await until_ended(queue, deployments.changed, status)
    await until("nothing is left", lambda: not setup.left())


async def test_a_job_that_comes_back_by_itself_leaves_the_line_of_its_old_limit(
    setup: SaqSetup, deployments: Deployments, limiter: Limiter
) -> None:
    queue = setup.queue({"stays": OLD, "changes": NEW}, claim=CLAIM)
    await queue._wake(deployments.changed.id)  # as SAQ does when it was parked for long
    async with limiter.hold(NEW):
        setup.work(queue, names=["stays", "changes"])
        await until("it waits again", lambda: parked(setup) == 2)
        assert (await limiter.inspect(NEW)).waiting == 1
        found = await limiter.inspect(OLD)
        assert found.waiting + sum(each.waiting for each in found.dormant) == 1
    setup.gate.set()
    await until_ended(queue, deployments.changed, Status.COMPLETE)
    await until_ended(queue, deployments.stayed, Status.COMPLETE)
    await until("nothing is left", lambda: not setup.left())


async def test_it_waits_in_one_line(
    setup: SaqSetup, deployments: Deployments, limiter: Limiter
) -> None:
    """For the limit that its function has now: the slot of the other is free for others."""
    async with limiter.hold(NEW):
        queue = deployments.go_on({"stays": OLD, "changes": NEW}, ["stays", "changes"])
        async with asyncio.timeout(CLAIM / 2):
            await until_ended(queue, deployments.stayed, Status.COMPLETE)
        assert (await limiter.inspect(NEW)).waiting == 1
    async with asyncio.timeout(CLAIM / 2):
        await until_ended(queue, deployments.changed, Status.COMPLETE)
    await until("nothing is left", lambda: not setup.left())


async def test_a_job_that_waits_is_aborted_though_its_function_has_no_limit_now(
    setup: SaqSetup, deployments: Deployments
) -> None:
    queue = setup.queue({"stays": OLD}, claim=CLAIM)
    job = await queue.job(deployments.changed.key)
    assert job is not None
    await queue.abort(job, "no longer needed")
    await until_ended(queue, job, Status.ABORTED)
    deployments.go_on({"stays": OLD}, ["stays", "changes"])
    async with asyncio.timeout(CLAIM / 2):
        await until_ended(queue, deployments.stayed, Status.COMPLETE)
    await until("nothing is left", lambda: not setup.left())


async def test_what_it_waited_for_is_not_kept_with_the_job(
    setup: SaqSetup, limiter: Limiter
) -> None:
    queue = setup.queue(OLD)
    setup.work(queue)
    async with limiter.hold(OLD):
        job = await queue.enqueue("job", name=1, meta={"mine": 1})
        assert job is not None
        await until("it waits", lambda: parked(setup) == 1)
    await until_ended(queue, job, Status.COMPLETE)
    found = await queue.job(job.key)
    assert found is not None
    assert found.meta == {"mine": 1}


async def until_ended(queue: Any, job: Job, status: Status) -> None:
    """Wait until a job has ended, with this status."""
    found = await queue.job(job.key)
    while found.status not in (Status.COMPLETE, Status.FAILED, Status.ABORTED):
        await asyncio.sleep(0.02)
        found = await queue.job(job.key)
    assert found.status is status
