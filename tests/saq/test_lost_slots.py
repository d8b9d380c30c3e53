"""What a lost slot does to a job: preempted or lost, short or long, coroutine function or not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from saq.job import Job, Status

from limiter_core.requests import Loss
from limiter_saq import ConcurrencyLimit, ConflictResolution

from .conftest import SaqSetup, until

LATEST = ConcurrencyLimit("user", 1, on_conflict=ConflictResolution.CANCEL_RUNNING)
ONE = ConcurrencyLimit("user", 1)
PREEMPTED = f"lost the lease on 'user=1': {Loss.PREEMPTED.value}"


class Bodies:
    """Bodies of jobs, and what they noted."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def names(self, event: str) -> list[Any]:
        return [name for what, name in self.events if what == event]

    async def coroutine(self, ctx: Any, *, user: int, name: Any, seconds: float) -> Any:
        self.events.append(("begins", name))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.events.append(("is cancelled", name))
            raise
        self.events.append(("ends", name))
        return name

    async def stubborn(self, ctx: Any, *, user: int, name: Any, seconds: float) -> Any:
        self.events.append(("begins", name))
        until_then = time.monotonic() + seconds
        while (left := until_then - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                self.events.append(("is cancelled", name))
        self.events.append(("ends", name))
        return name

    def plain(self, ctx: Any, *, user: int, name: Any, seconds: float) -> Any:
        self.events.append(("begins", name))
        time.sleep(seconds)
        self.events.append(("ends", name))
        return name


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


async def enqueue(queue: Any, name: Any, seconds: float, **more: Any) -> Job:
    job: Job | None = await queue.enqueue("job", user=1, name=name, seconds=seconds, **more)
    assert job is not None
    return job


async def ended(job: Job) -> Job:
    await job.refresh(20.0)
    return job


@pytest.mark.parametrize("seconds", [0.5, 30.0])
async def test_a_newer_job_has_a_coroutine_cancelled_at_once(
    setup: SaqSetup, bodies: Bodies, seconds: float
) -> None:
    """SAQ's own abort would look a second later: a short body would have ended by then."""
    queue = setup.queue(LATEST)
    setup.work(queue, function=bodies.coroutine)
    older = await enqueue(queue, "older", seconds)
    await until("it runs", lambda: bodies.names("begins") == ["older"])
    newer = await enqueue(queue, "newer", 0.0)
    assert ((await ended(older)).status, older.error) == (Status.ABORTED, PREEMPTED)
    assert (await ended(newer)).status is Status.COMPLETE
    assert bodies.events == [
        ("begins", "older"),
        ("is cancelled", "older"),
        ("begins", "newer"),
        ("ends", "newer"),
    ]
    assert older.attempts == 1


@pytest.mark.parametrize("kind", ["stubborn", "plain"])
@pytest.mark.parametrize("seconds", [0.5, 2.5])
async def test_a_body_that_cannot_be_stopped_keeps_its_slot_until_it_returns(
    setup: SaqSetup, bodies: Bodies, kind: str, seconds: float
) -> None:
    queue = setup.queue(LATEST)
    setup.work(queue, function=getattr(bodies, kind))
    older = await enqueue(queue, "older", seconds)
    await until("it runs", lambda: bodies.names("begins") == ["older"])
    newer = await enqueue(queue, "newer", 0.0)
    assert ((await ended(older)).status, older.error) == (Status.ABORTED, PREEMPTED)
    assert (await ended(newer)).status is Status.COMPLETE
    seen = [each for each in bodies.events if each[0] != "is cancelled"]
    assert seen == [("begins", "older"), ("ends", "older"), ("begins", "newer"), ("ends", "newer")]


async def test_a_job_that_is_preempted_before_its_body_is_aborted(
    setup: SaqSetup, bodies: Bodies
) -> None:
    queue = setup.queue(LATEST)
    at_gate = asyncio.Event()

    async def before(context: Any) -> None:
        if context["job"].kwargs["name"] == "older":
            at_gate.set()
            await asyncio.sleep(30)

    setup.work(queue, function=bodies.coroutine, before_process=before)
    older = await enqueue(queue, "older", 0.0)
    await at_gate.wait()
    newer = await enqueue(queue, "newer", 0.0)
    assert ((await ended(older)).status, older.error) == (Status.ABORTED, PREEMPTED)
    assert (await ended(newer)).status is Status.COMPLETE
    assert bodies.names("begins") == ["newer"]


def lose(queue: Any) -> None:
    ((_, lease),) = queue._leases.values()
    lease._call.lease_lost(Loss.EXPIRED)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
async def test_a_coroutine_whose_lease_is_lost_runs_again(
    setup: SaqSetup, bodies: Bodies, seconds: float
) -> None:
    queue = setup.queue(ONE)
    setup.work(queue, function=bodies.coroutine)
    job = await enqueue(queue, "kept", seconds)
    await until("it runs", lambda: bodies.names("begins"))
    lose(queue)
    assert ((await ended(job)).status, job.attempts) == (Status.COMPLETE, 2)
    assert bodies.names("is cancelled") == ["kept"]
    assert bodies.names("ends") == ["kept"]


@pytest.mark.parametrize("seconds", [0.5, 2.5])
async def test_a_plain_function_whose_lease_is_lost_goes_on_and_does_not_run_again(
    setup: SaqSetup, bodies: Bodies, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    queue = setup.queue(ONE)
    setup.work(queue, function=bodies.plain)
    job = await enqueue(queue, "kept", seconds)
    await until("it runs", lambda: bodies.names("begins"))
    lose(queue)
    assert ((await ended(job)).status, job.attempts) == (Status.COMPLETE, 1)
    assert bodies.events == [("begins", "kept"), ("ends", "kept")]
    assert "cannot be stopped" in caplog.text


async def test_a_lease_lost_before_the_body_has_the_job_run_again(
    setup: SaqSetup, bodies: Bodies
) -> None:
    queue = setup.queue(ONE)
    at_gate, times = asyncio.Event(), [30.0, 0.0]

    async def before(_: Any) -> None:
        at_gate.set()
        await asyncio.sleep(times.pop(0))

    setup.work(queue, function=bodies.coroutine, before_process=before)
    job = await enqueue(queue, "kept", 0.0)
    await at_gate.wait()
    lose(queue)
    assert ((await ended(job)).status, job.attempts) == (Status.COMPLETE, 2)
    assert bodies.names("begins") == ["kept"]
