"""A lost lease cancels the body as any scope does: beside scopes, tasks and shields of others."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost

from ._tools import until

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


async def test_a_task_group_inside_of_the_body_ends_with_a_lost_lease(limiter):
    ended: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("child")

    async def body() -> None:
        async with limiter.hold(ONE) as lease, anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            await anyio.wait_all_tasks_blocked()
            await limiter.evict(lease.id)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost):
        await body()
    assert ended == ["child"]


async def test_a_lost_lease_spares_a_shielded_block_of_the_body(limiter):
    """As any cancellation: what the body shields is finished before the loss is raised."""
    finished: list[str] = []

    async def body() -> None:
        async with limiter.hold(ONE) as lease:
            with anyio.CancelScope(shield=True):
                await limiter.evict(lease.id)
                for _ in range(5):
                    await checkpoint()
                finished.append("shielded")
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost):
        await body()
    assert finished == ["shielded"]


async def test_two_nested_holds_that_are_both_lost_end_as_losses(limiter):
    other = ConcurrencyLimit(LIMIT_BY.constant("other"))

    async def body() -> None:
        async with limiter.hold(ONE) as outer, limiter.hold(other) as inner:
            await limiter.evict(inner.id)
            await limiter.evict(outer.id)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost):
        await body()
    await checkpoint()


async def test_a_lost_outer_hold_is_told_by_the_outer_one(limiter):
    other = ConcurrencyLimit(LIMIT_BY.constant("other"))

    async def body() -> None:
        async with limiter.hold(ONE) as outer, limiter.hold(other):
            await limiter.evict(outer.id)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost) as loss:
        await body()
    assert loss.value.keys == ("key",)


@pytest.mark.parametrize("first", ["evict", "cancel"])
async def test_a_cancellation_from_outside_is_not_swallowed_by_a_loss(store, limiter, first):
    went_on: list[str] = []

    async def body(scope: anyio.CancelScope) -> None:
        with scope, contextlib.suppress(LeaseLost):
            async with limiter.hold(ONE):
                await anyio.sleep_forever()
        await checkpoint()
        went_on.append("after the scope")

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body, scope)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        holder = store.inspect("key").holders[0].id
        if first == "cancel":
            scope.cancel()
        await limiter.evict(holder)
        scope.cancel()
    assert went_on == ["after the scope"]


@pytest.mark.parametrize("first", ["evict", "cancel"])
async def test_a_scope_cancelled_in_the_tick_of_the_loss_cancels_no_more_than_its_block(
    limiter, first
):
    lives: list[str] = []

    async def body() -> None:
        with anyio.CancelScope() as scope, contextlib.suppress(LeaseLost):
            async with limiter.hold(ONE) as lease:
                if first == "cancel":
                    scope.cancel()
                await limiter.evict(lease.id)
                scope.cancel()
                while True:
                    await checkpoint()
        lives.append("this task")

    async def neighbour() -> None:
        for _ in range(10):
            await checkpoint()
        lives.append("its neighbour")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body)
        tasks.start_soon(neighbour)
    assert lives == ["this task", "its neighbour"]


@ASYNCIO_ONLY
@pytest.mark.parametrize("first", ["evict", "cancel"])
async def test_a_cancelled_task_stays_cancelled_when_its_lease_is_lost_too(store, limiter, first):
    async def body() -> None:
        async with limiter.hold(ONE):
            await anyio.sleep_forever()

    task = asyncio.create_task(body())
    await until(lambda: store.inspect("key").in_use == 1, "the body runs")
    holder = store.inspect("key").holders[0].id
    if first == "cancel":
        task.cancel()
    await limiter.evict(holder)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or isinstance(task.exception(), LeaseLost)
    assert first == "evict" or task.cancelled()
