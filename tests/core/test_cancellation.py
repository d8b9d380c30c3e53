"""Cancellation beside a hand-off, by every means there is; the slot always reaches the next."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, WaitTimeout

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
