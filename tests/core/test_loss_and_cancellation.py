"""A lost lease cancels the body as any scope does: beside scopes, tasks and shields of others."""

from __future__ import annotations

import asyncio
import contextlib
import time

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, Limiter

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


@pytest.mark.parametrize("work", ["a shield", "a thread"])
async def test_a_lost_lease_is_told_between_one_shielded_block_and_the_next(limiter, work):
    """However short the moment is in which the body is in none."""
    blocks: list[int] = []

    async def body() -> None:
        async with limiter.hold(ONE) as lease:
            for number in range(200):
                if number == 1:
                    await limiter.evict(lease.id)
                if work == "a thread":
                    await anyio.to_thread.run_sync(time.sleep, 0.001)
                else:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.001)
                    await checkpoint()
                blocks.append(number)

    with pytest.raises(LeaseLost):
        await body()
    assert len(blocks) <= 2


@ASYNCIO_ONLY
async def test_a_task_that_leaves_the_block_of_another_keeps_its_own_cancellation(store, limiter):
    stack = contextlib.AsyncExitStack()
    entered = asyncio.Event()

    async def enter() -> None:
        await stack.enter_async_context(limiter.hold(ONE))
        entered.set()
        await asyncio.sleep(60)

    async def leave() -> None:
        async with stack:
            await asyncio.sleep(60)

    owner = asyncio.create_task(enter())
    await entered.wait()
    leaver = asyncio.create_task(leave())
    await checkpoint()
    await limiter.evict(store.inspect("key").holders[0].id)
    with pytest.raises(asyncio.CancelledError):
        await owner
    leaver.cancel("its own")
    with pytest.raises(asyncio.CancelledError, match="its own"):
        await leaver
    assert leaver.cancelled()


def test_a_loss_after_the_end_of_its_event_loop_fails_nobody_else(store, threads):
    """In the thread of that loop: the holder's task was never ended."""
    limiter = Limiter(store)
    holding: list[asyncio.Task[None]] = []

    async def hold() -> None:
        async with limiter.hold(ONE):
            await asyncio.sleep(60)

    async def begin() -> None:
        holding.append(asyncio.create_task(hold()))
        await until(lambda: store.inspect("key").in_use == 1, "it holds")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    assert threads.evict(store.inspect("key").holders[0].id)
    with threads.hold(ONE):
        pass
    task = holding.pop()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()  # type: ignore[union-attr]


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
