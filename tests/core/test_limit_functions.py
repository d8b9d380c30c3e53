"""Per-tenant limits: `max_concurrent`, `cost` and `priority` as functions of the call."""

from __future__ import annotations

import pytest
from anyio import create_task_group

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, ConflictResolution

from ._tools import keys_in_use, until_waiting

EVERYBODY = LIMIT_BY.constant("everybody")


async def test_the_number_may_depend_on_the_call(limiter):
    limit = ConcurrencyLimit(
        "tenant", max_concurrent=lambda args: {"big": 2}.get(args["tenant"], 1)
    )
    async with limiter.hold(limit, {"tenant": "big"}), limiter.hold(limit, {"tenant": "small"}):
        second = await limiter.try_acquire(limit, {"tenant": "big"})
        assert second is not None
        assert await limiter.try_acquire(limit, {"tenant": "big"}) is None
        assert await limiter.try_acquire(limit, {"tenant": "small"}) is None
        assert (await limiter.inspect(limit, {"tenant": "big"})).limit == 2
        await second.release()


async def test_the_functions_may_be_async(limiter):
    async def two(args) -> int:
        return args["two"]

    limit = ConcurrencyLimit(EVERYBODY, max_concurrent=two, cost=two)
    async with limiter.hold(limit, {"two": 2}):
        assert (await limiter.inspect("everybody")).in_use == 2


def test_an_async_function_is_refused_by_the_sync_limiter(threads):
    async def two(args) -> int:
        return 2

    for limit in (
        ConcurrencyLimit(EVERYBODY, max_concurrent=two),
        ConcurrencyLimit(EVERYBODY, max_concurrent=2, cost=two),
    ):
        with pytest.raises(ConfigurationError, match="SyncLimiter cannot await"):
            threads.acquire(limit)
    assert list(threads.keys()) == []


async def test_the_cost_may_depend_on_the_call(limiter):
    limit = ConcurrencyLimit(EVERYBODY, max_concurrent=3, cost=lambda args: args["size"])
    async with limiter.hold(limit, {"size": 2}):
        assert await limiter.try_acquire(limit, {"size": 2}) is None
        async with limiter.hold(limit, {"size": 1}):
            assert (await limiter.inspect("everybody")).in_use == 3


async def test_the_priority_may_depend_on_the_call(store, limiter):
    limit = ConcurrencyLimit(
        EVERYBODY, on_conflict=ConflictResolution.PRIORITY, priority=lambda args: args["urgency"]
    )
    served: list[int] = []

    async def call(urgency: int) -> None:
        async with limiter.hold(limit, {"urgency": urgency}):
            served.append(urgency)

    async with create_task_group() as tasks, limiter.hold(limit, {"urgency": 0}):
        for number, urgency in enumerate([1, 5, 3], start=1):
            tasks.start_soon(call, urgency)
            await until_waiting(store, "everybody", number)
    assert served == [5, 3, 1]


def test_priority_is_not_asked_for_where_nothing_is_ordered_by_it(threads):
    asked: list[object] = []
    limit = ConcurrencyLimit(EVERYBODY, priority=lambda args: asked.append(args) or 5)
    with threads.hold(limit):
        assert asked == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrent": lambda _: -1},
        {"max_concurrent": lambda _: "3"},
        {"max_concurrent": lambda _: None},
        {"max_concurrent": lambda _: True},
        {"max_concurrent": 2, "cost": lambda _: 0},
        {"max_concurrent": 2, "cost": lambda _: 1.5},
        {"max_concurrent": 2, "cost": lambda _: 3},
        {"max_concurrent": lambda _: 2, "cost": 3},
        {"on_conflict": ConflictResolution.PRIORITY, "priority": lambda _: "high"},
        {"on_conflict": ConflictResolution.PRIORITY, "priority": lambda _: 2**40},
    ],
)
async def test_a_wrong_answer_of_a_function_is_refused_and_nothing_is_taken(
    limiter, threads, options
):
    limit = ConcurrencyLimit(EVERYBODY, **options)
    with pytest.raises(ConfigurationError):
        await limiter.acquire(limit)
    with pytest.raises(ConfigurationError):
        threads.acquire(limit)
    assert await keys_in_use(limiter) == []


async def test_what_a_function_raises_reaches_the_caller_and_nothing_is_taken(limiter):
    limit = ConcurrencyLimit(EVERYBODY, max_concurrent=lambda args: {}["tenant"])
    with pytest.raises(KeyError, match="tenant"):
        await limiter.acquire(limit)
    assert await keys_in_use(limiter) == []
