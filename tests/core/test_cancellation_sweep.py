"""Cancellation at every await, once and twice: capacity is full afterwards and nobody waits.

A scenario under contention is run once to count its awaits, then again and again, cancelled at
each of them in turn: as asyncio does it (`task.cancel()`, while the await waits or in the very
tick in which it is served), and as trio and anyio do it (a cancel scope).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_memory import MemoryStore

from ._stepper import interrupted_late, stepped
from ._stores import RemoteStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"))
TWO = ConcurrencyLimit(LIMIT_BY.constant("two"), max_concurrent=2)
STORES: dict[str, Callable[[], Any]] = {
    "memory": MemoryStore,
    "remote": lambda: RemoteStore(steps=1),
    "remote that hints": lambda: RemoteStore(steps=2, hints_only=True),
}
ON_EVERY_STORE = pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
ENOUGH = 2000
"""Turns of the event loop within which everybody is through: nothing here waits for time."""


async def scenario(limiter: Limiter) -> None:
    """Use every way to take slots, each of which has to wait for a rival."""
    async with limiter.hold(ONE):
        await checkpoint()
    lease = await limiter.acquire([TWO, ONE])
    try:
        await checkpoint()
    finally:
        await lease.release()
    await limiter.run(ONE, checkpoint)


async def contend(make_store: Callable[[], Any], run: Callable[[Any], Awaitable[None]]) -> str:
    """Run the scenario between rivals as `run` says; what it leaves behind, "" for nothing."""
    store = make_store()
    limiter = Limiter(store)
    finished: list[None] = []

    async def rival(limits: Any, rounds: int) -> None:
        for _ in range(rounds):
            async with limiter.hold(limits):
                await checkpoint()
                await checkpoint()
        finished.append(None)

    async def call() -> None:
        await run(scenario(limiter))
        finished.append(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rival, ONE, 3)
        tasks.start_soon(rival, [ONE, TWO], 2)
        tasks.start_soon(call)
        tasks.start_soon(rival, TWO, 3)
        tasks.start_soon(rival, ONE, 2)
        for _ in range(ENOUGH):
            if len(finished) == 5:
                break
            await checkpoint()
        inner = getattr(store, "inner", store)
        left = {key: inner.inspect(key).in_use for key in inner.keys()}
        tasks.cancel_scope.cancel()
    return f"{5 - len(finished)} wait for ever; in use: {left}" if left else ""


async def count_awaits(make_store: Callable[[], Any]) -> int:
    numbers: list[int] = []

    async def run(coroutine: Any) -> None:
        await stepped(coroutine, numbers.append)

    assert await contend(make_store, run) == ""
    assert len(numbers) >= 3
    return max(len(numbers), 10)  # in trio the order of tasks, and so the number, is random


def by_scope(*at: int) -> Callable[[Any], Awaitable[None]]:
    """Cancel a surrounding scope as the scenario begins to wait for the n-th time."""

    async def run(coroutine: Any) -> None:
        with anyio.CancelScope() as scope:
            await stepped(coroutine, lambda number: scope.cancel() if number in at else None)

    return run


def by_task(*at: int) -> Callable[[Any], Awaitable[None]]:
    """Cancel the task as the scenario begins to wait for the n-th time, and again."""

    async def run(coroutine: Any) -> None:
        task: asyncio.Task[None]

        async def steps() -> None:
            await stepped(coroutine, lambda number: task.cancel() if number in at else None)

        task = asyncio.create_task(steps())
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    return run


def late(*at: int) -> Callable[[Any], Awaitable[None]]:
    """Cancel the task in the tick in which its n-th await was served."""

    async def run(coroutine: Any) -> None:
        async def steps() -> None:
            await interrupted_late(coroutine, at)

        task = asyncio.create_task(steps())
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    return run


async def sweep(make_store: Callable[[], Any], cancel: Callable[..., Any], times: int) -> None:
    awaits = await count_awaits(make_store)
    leaks: dict[tuple[int, ...], str] = {}
    for first in range(1, awaits + 1):
        # A cancelled scenario has awaits of its own while it cleans up: look a few further.
        for others in itertools.combinations(range(first + 1, first + 7), times - 1):
            at = (first, *others)
            if left := await contend(make_store, cancel(*at)):
                leaks[at] = left
    assert leaks == {}


@ON_EVERY_STORE
async def test_cancelled_by_a_scope_at_every_await(make_store):
    await sweep(make_store, by_scope, 1)


@ASYNCIO_ONLY
@ON_EVERY_STORE
async def test_cancelled_as_a_task_at_every_await(make_store):
    await sweep(make_store, by_task, 1)


@ASYNCIO_ONLY
@ON_EVERY_STORE
async def test_cancelled_as_a_task_in_the_tick_that_served_every_await(make_store):
    await sweep(make_store, late, 1)


@pytest.mark.exhaustive
@ASYNCIO_ONLY
@ON_EVERY_STORE
async def test_row_26_cancelled_as_a_task_at_every_await_and_again_in_the_cleanup(make_store):
    await sweep(make_store, by_task, 2)


@pytest.mark.exhaustive
@ASYNCIO_ONLY
@ON_EVERY_STORE
async def test_row_26_cancelled_late_at_every_await_and_again_in_the_cleanup(make_store):
    await sweep(make_store, late, 2)


class TestAStoreWhoseReleaseCanBeCutShort:
    """It suspends before the release is on its way: then the limiter has to see to it."""

    @staticmethod
    def make_store() -> RemoteStore:
        return RemoteStore(steps=1, sure_release=False)

    async def test_cancelled_by_a_scope_at_every_await(self):
        await sweep(self.make_store, by_scope, 1)

    @ASYNCIO_ONLY
    @pytest.mark.parametrize("cancel", [by_task, late])
    @pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
    async def test_row_26_cancelled_as_a_task_at_every_await(self, cancel, times):
        await sweep(self.make_store, cancel, times)
