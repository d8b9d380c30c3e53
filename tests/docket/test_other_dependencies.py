"""Limits beside other dependencies, and beside a store that is away."""

from __future__ import annotations

# ruff: noqa: B008
from datetime import timedelta
from typing import Any

import pytest
from docket import (
    Cooldown,
    Debounce,
    Docket,
    RateLimit,
    Worker,
)

from limiter_core import ConfigurationError
from limiter_docket import ConcurrencyLimit, set_store
from limiter_redis import RedisStore
from tests.docket._tools import (
    TaskRecord,
    finish,
    most_at_once,
    parked,
    until,
    until_true,
    working,
)
from tests.redis._servers import Process


@pytest.mark.parametrize("beside", [Cooldown(timedelta(seconds=1)), Debounce(timedelta(seconds=1))])
async def test_what_would_lose_a_waiting_task_is_refused(any_docket: Docket, beside: Any) -> None:
    async def bill(c: ConcurrencyLimit = ConcurrencyLimit(), d: Any = beside):
        raise AssertionError("never")

    any_docket.register(bill)
    async with Worker(any_docket) as worker:
        with pytest.raises(ConfigurationError, match=f"bill has a {type(beside).__name__}"):
            await worker.run_until_finished()


async def test_what_would_lose_a_task_is_refused_also_on_a_task_that_comes_later(
    docket: Docket,
) -> None:
    async def bill(
        c: ConcurrencyLimit = ConcurrencyLimit(),
        d: RateLimit = RateLimit(1, per=timedelta(seconds=1), drop=True),
    ):
        raise AssertionError("never")

    async def first():
        return "here"

    async with working(docket):
        here = await docket.add(first)()
        assert await here.get_result(timeout=timedelta(seconds=10)) == "here"
        execution = await docket.add(bill)()
        with pytest.raises(ExceptionGroup) as caught:
            await execution.get_result(timeout=timedelta(seconds=10))
    assert isinstance(caught.value.exceptions[0], ConfigurationError)


@pytest.mark.parametrize("limit_first", [True, False])
async def test_a_rate_limit_beside_a_limit_loses_nothing(docket: Docket, limit_first: bool) -> None:
    record = TaskRecord()
    rate = RateLimit(3, per=timedelta(milliseconds=300))

    async def one(n: int, c: ConcurrencyLimit = ConcurrencyLimit(), r: RateLimit = rate):
        await record.body(n)

    async def two(n: int, r: RateLimit = rate, c: ConcurrencyLimit = ConcurrencyLimit()):
        await record.body(n)

    task = one if limit_first else two
    for each in range(6):
        await docket.add(task)(each)
    await finish(docket)
    assert sorted(record.began) == [0, 1, 2, 3, 4, 5]
    assert most_at_once(record.bodies) == 1


async def test_an_outage_of_the_store_keeps_the_tasks(docket: Docket, own_server: Process) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        await record.body(n)

    async def unlimited():
        record.began.append("unlimited")

    store = RedisStore(own_server.url)
    set_store(docket, store)
    own_server.kill()
    async with working(docket):
        for each in range(3):
            await docket.add(bill)(each)
        await until_true(parked(docket, 3), "all wait for the store")
        await docket.add(unlimited)()
        await until(lambda: record.began == ["unlimited"], "others run")
        own_server.start()
        await until(lambda: len(record.began) == 4, "all run")
    assert sorted(record.began[1:]) == [0, 1, 2]
    await store.aclose()


async def test_a_store_may_be_done_without(docket: Docket, own_server: Process) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        assert c.fencing_token == 0
        await record.body(n)

    store = RedisStore(own_server.url)
    set_store(docket, store, on_store_error="admit")
    own_server.kill()
    for each in range(3):
        await docket.add(bill)(each)
    await finish(docket)
    assert sorted(record.began) == [0, 1, 2]
    own_server.start()
    await store.aclose()


async def test_a_docket_that_remembers_nothing_waits_as_well(
    server: Any,
) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1)):
        await record.body(n)

    async with Docket(name="forgetful", url=server.url, execution_ttl=timedelta(0)) as docket:
        for each in range(5):
            await docket.add(bill, key="same" if each == 4 else f"k{each}")(each)
        await finish(docket)
        assert sorted(record.began) == [0, 1, 2, 3, 4]
        async with docket.redis() as redis:
            assert not await redis.keys(f"{docket.prefix}:runs:*")
            assert not await redis.keys(f"{docket.prefix}:k*")
