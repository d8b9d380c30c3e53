"""Cancellation beside a hand-off, by every means there is; the slot always reaches the next."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, Limiter, WaitTimeout

from ._tools import keys_in_use, until, until_waiting

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture(autouse=True)
async def capacity_is_full_afterwards(limiter):
    yield
    assert await keys_in_use(limiter) == []
    lease = await limiter.try_acquire(ONE)
    assert lease is not None
    await lease.release()


async def test_a_cancelled_waiter_leaves_the_queue(store, limiter):
    async with limiter.hold(ONE), anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.acquire, ONE)
        await until_waiting(store, "key", 1)
        tasks.cancel_scope.cancel()
    assert store.inspect("key").waiting == 0


async def test_a_cancelled_body_gives_its_slot_to_the_next(store, limiter):
    ran: list[str] = []

    async def body(scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter.hold(ONE):
                await anyio.sleep_forever()

    async def next_call() -> None:
        async with limiter.hold(ONE):
            ran.append("next")

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body, scope)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        tasks.start_soon(next_call)
        await until_waiting(store, "key", 1)
        scope.cancel()
    assert ran == ["next"]


@pytest.mark.parametrize("first", ["release", "cancel"])
@pytest.mark.parametrize("spins", range(4))
async def test_row_10_a_scope_cancelled_in_the_tick_of_the_release(store, limiter, first, spins):
    async def waiter(scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter.hold(ONE):
                await checkpoint()

    scope = anyio.CancelScope()
    lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter, scope)
        tasks.start_soon(limiter.run, ONE, checkpoint)
        await until_waiting(store, "key", 2)
        if first == "cancel":
            scope.cancel()
        await lease.release()
        for _ in range(spins):
            await checkpoint()
        scope.cancel()


@ASYNCIO_ONLY
@pytest.mark.parametrize("first", ["release", "cancel"])
@pytest.mark.parametrize("spins", range(4))
async def test_row_10_a_task_cancelled_in_the_tick_of_the_release(store, limiter, first, spins):
    async def call() -> None:
        async with limiter.hold(ONE):
            await checkpoint()

    lease = await limiter.acquire(ONE)
    cancelled, patient = (asyncio.create_task(call()) for _ in range(2))
    await until_waiting(store, "key", 2)
    if first == "cancel":
        cancelled.cancel()
    await lease.release()
    for _ in range(spins):
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled, patient])
    assert patient.result() is None


@ASYNCIO_ONLY
async def test_a_task_cancelled_before_it_began_takes_nothing(limiter):
    task = asyncio.create_task(limiter.acquire(ONE))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@ASYNCIO_ONLY
async def test_row_27_a_timeout_around_acquire_swept_over_the_hand_off(limiter):
    """`asyncio.wait_for` returns the lease, or the lease does not exist: never neither."""
    outcomes: set[str] = set()
    for microseconds in range(0, 4000, 50):
        held = await limiter.acquire(ONE)
        waiter = asyncio.create_task(
            asyncio.wait_for(limiter.acquire(ONE), 0.001 + microseconds / 1_000_000)
        )
        await asyncio.sleep(0.003)
        await held.release()
        try:
            lease = await waiter
        except TimeoutError:
            outcomes.add("timed out")
        else:
            outcomes.add("acquired")
            await lease.release()
        assert await keys_in_use(limiter) == []
    assert outcomes == {"timed out", "acquired"}


async def test_row_27_our_own_timeout_swept_over_the_hand_off(store, limiter):
    outcomes: set[str] = set()
    for microseconds in range(0, 4000, 100):
        held = await limiter.acquire(ONE)

        async def call(timeout: float) -> None:
            try:
                async with limiter.hold(ONE, timeout=timeout):
                    outcomes.add("acquired")
            except WaitTimeout:
                outcomes.add("timed out")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, 0.001 + microseconds / 1_000_000)
            await anyio.sleep(0.003)
            await held.release()
        assert list(store.keys()) == []
    assert outcomes == {"timed out", "acquired"}


@ASYNCIO_ONLY
@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "in the body"])
async def test_asyncio_timeout_around_a_hold(store, limiter, waits):
    blocker = await Limiter(store).acquire(ONE) if waits else None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005), limiter.hold(ONE):
            await anyio.sleep_forever()
    if blocker is not None:
        await blocker.release()
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "in the body"])
async def test_a_scope_with_a_deadline_around_a_hold(store, limiter, waits):
    blocker = await Limiter(store).acquire(ONE) if waits else None
    with anyio.move_on_after(0.005) as scope:
        async with limiter.hold(ONE):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    if blocker is not None:
        await blocker.release()


async def test_a_scope_inside_of_the_body_is_the_bodys_own(limiter):
    async with limiter.hold(ONE) as lease:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not lease.lost


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
