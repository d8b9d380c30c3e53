"""A worker of SAQ in burst mode ends when there is nothing left to do, and not before."""

from __future__ import annotations

import time

from .conftest import SaqSetup, until
from .test_saq import ONE, parked


async def test_a_worker_in_burst_mode_ends_when_no_job_waits(setup: SaqSetup) -> None:
    """A job that waits for its slot was due: the worker runs it before it ends."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    for number in range(6):
        await queue.enqueue("job", user=1, name=number)
    worker = setup.work(queue, concurrency=3, burst=True, dequeue_timeout=0.1)
    await until("the others wait", lambda: parked(setup) == 5)
    for _ in range(3):  # the worker finds no job again and again
        await queue.redis.blpop(["nothing"], timeout=0.1)
    assert not worker.event.is_set()
    setup.gate.set()
    await until("the worker ended", lambda: worker.event.is_set())  # noqa: PLW0108  (`start` makes the event)
    assert sorted(setup.ran) == list(range(6))


async def test_a_worker_in_burst_mode_does_not_wait_for_jobs_of_later(setup: SaqSetup) -> None:
    queue = setup.queue(ONE)
    await queue.enqueue("job", user=1, name="now")
    await queue.enqueue("job", user=1, name="later", scheduled=int(time.time()) + 3600)
    worker = setup.work(queue, burst=True, dequeue_timeout=0.1)
    await until("the worker ended", lambda: worker.event.is_set())  # noqa: PLW0108  (`start` makes the event)
    assert setup.ran == ["now"]
