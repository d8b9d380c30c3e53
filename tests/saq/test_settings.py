"""A limit is never silently ignored: what cannot be kept is refused where it is written."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from redis.asyncio import Redis
from saq import worker as saq_worker
from saq.worker import Worker

from limiter_core import ConfigurationError
from limiter_saq import LIMIT_BY, ConcurrencyLimit, LimitedQueue

from .conftest import SaqSetup, until

ONE = ConcurrencyLimit("user", max_concurrent=1)


async def sync(ctx: Any, *, user: int, region: str = "eu") -> None: ...


def queue_of(limits: Any) -> LimitedQueue:
    client: Any = Redis.from_url("redis://nowhere.invalid:1/0", socket_timeout=None)
    return LimitedQueue(client, limits=limits)


@pytest.mark.parametrize("given", [3, None, "user", [], [ONE, "user"], {"by": "user"}])
async def test_what_is_no_limit_is_refused_where_it_is_written(given: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="limits= of the function 'sync' needs a ConcurrencyLimit"
    ):
        queue_of({"sync": given})


async def test_what_is_no_function_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match="functions and their names, got 3"):
        queue_of({3: ONE})


async def test_a_name_that_no_function_of_the_worker_has_is_refused_when_it_starts() -> None:
    queue = queue_of({"snyc": ONE})
    with pytest.raises(ConfigurationError, match=r"names 'snyc'.*there are: sync"):
        Worker(queue, functions=[sync])


@pytest.mark.parametrize(
    "by", ["usr", "ctx", ["region", "usr"], LIMIT_BY.fn_name & LIMIT_BY.fn_argument("usr")]
)
async def test_an_argument_that_the_function_does_not_have_is_refused(by: Any) -> None:
    with pytest.raises(ConfigurationError, match="there are: user, region"):
        queue_of({sync: ConcurrencyLimit(by)})
    queue = queue_of({"sync": ConcurrencyLimit(by)})
    with pytest.raises(ConfigurationError, match="there are: user, region"):
        Worker(queue, functions=[sync])


async def test_what_can_be_kept_is_taken() -> None:
    queue = queue_of({"sync": [ONE, ConcurrencyLimit("region.name")]})
    Worker(queue, functions=[sync])
    Worker(queue, functions=[("sync", sync)])


async def test_defaults_count_though_only_the_name_was_given(setup: SaqSetup) -> None:
    queue = setup.queue(ONE)
    setup.work(queue)
    for number in range(5):
        await queue.enqueue("job", name=number)
    await until("all jobs ran", lambda: len(setup.ran) == 5)
    assert setup.most == 1


def test_saqs_worker_is_what_it_was() -> None:
    """Of its `process` the names are looked at; a new SAQ must fail here first."""
    process = " ".join(inspect.getsource(Worker.process).split())
    for line in (
        "task_ctx: JobTaskContext | None = None",
        "task_ctx = JobTaskContext(task=task, aborted=None)",
        'if task_ctx["aborted"] is None: await job.finish(Status.COMPLETE',
        "if aborted is not None: await job.finish(Status.ABORTED, error=aborted)",
        "function = ensure_coroutine_function(self.functions[job.function], self.pool)",
        "job = await self.queue.dequeue(",
    ):
        assert line in process, line
    assert {"task", "aborted"} == set(saq_worker.JobTaskContext.__annotations__)
