"""One process: the memory store, and limiters that work in one process only.

The peers do less (no keys, no conflict resolution, no lease), so their time is the floor to which
all other features add.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import trio
from aiolimiter import AsyncLimiter

from harness import (
    AsyncContender,
    Bar,
    Settings,
    Table,
    compare,
    compare_plain,
    cost_rows,
    rate_rows,
)
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter

PEER = "anyio.CapacityLimiter"
OURS = "Limiter.hold, by an argument"
WAITERS = 20

Enter = Callable[[], AbstractAsyncContextManager[Any]]
"""Returns a context manager that takes a slot, and releases it at the end."""


def tables(settings: Settings) -> list[Table]:
    """Measure, on asyncio, on trio and in threads."""
    return [
        anyio.run(_uncontended, "asyncio", settings),
        anyio.run(_uncontended, "trio", settings, backend="trio"),
        anyio.run(_hand_offs, "asyncio", settings),
        anyio.run(_hand_offs, "trio", settings, backend="trio"),
        _threads(settings),
    ]


async def _uncontended(backend: str, settings: Settings) -> Table:
    limiter = Limiter("memory://")
    by_argument = ConcurrencyLimit("customer_id", max_concurrent=10)
    constant = ConcurrencyLimit(LIMIT_BY.constant("billing_ops"), max_concurrent=10)
    arguments = {"customer_id": 42}

    @limiter.limited(by_argument)
    async def limited(customer_id: int) -> None:
        pass

    async def call_limited(operations: int) -> None:
        for _ in range(operations):
            await limited(42)

    async def acquire_and_release(operations: int) -> None:
        for _ in range(operations):
            lease = await limiter.acquire(by_argument, arguments)
            await lease.release()

    contenders: dict[str, AsyncContender] = {
        **{name: _alone(enter) for name, enter in _peers(backend, 10).items()},
        OURS: _alone(lambda: limiter.hold(by_argument, arguments)),
        "Limiter.hold, by a constant": _alone(lambda: limiter.hold(constant)),
        "Limiter.hold, both of them": _alone(
            lambda: limiter.hold([by_argument, constant], arguments)
        ),
        "Limiter.acquire and release": acquire_and_release,
        "Limiter.limited function": call_limited,
    }
    if backend == "asyncio":
        rate_limiter = AsyncLimiter(1_000_000_000, 1)
        contenders["aiolimiter.AsyncLimiter"] = _alone(lambda: rate_limiter)
    best = await compare(contenders, 1_000, settings)
    bars = {OURS: Bar(at_most=1.5, stretch=1.0)} if backend == "asyncio" else {}
    return Table(
        f"{backend}: take and release a slot, no waiters",
        "per operation",
        f"time, to {PEER}",
        cost_rows(best, PEER, bars),
    )


async def _hand_offs(backend: str, settings: Settings) -> Table:
    limiter = Limiter("memory://")
    limit = ConcurrencyLimit("customer_id", max_concurrent=1)
    arguments = {"customer_id": 42}
    contenders = {name: _crowd(backend, make) for name, make in _peers(backend, 1).items()}
    contenders[OURS] = _crowd(backend, lambda: limiter.hold(limit, arguments))
    best = await compare(contenders, 200 * (WAITERS + 1), settings)
    bars = {OURS: Bar(at_least=0.5)} if backend == "asyncio" else {}
    return Table(
        f"{backend}: hand one slot on, {WAITERS} wait",
        "per hand-off",
        f"rate, to {PEER}",
        rate_rows(best, PEER, bars),
    )


def _peers(backend: str, slots: int) -> dict[str, Enter]:
    """Return the peers on this event loop."""
    capacity = anyio.CapacityLimiter(slots)
    peers: dict[str, Enter] = {PEER: lambda: capacity}
    if backend == "asyncio":
        plain = asyncio.Semaphore(slots)
        peers["asyncio.Semaphore"] = lambda: plain
    else:
        own = trio.CapacityLimiter(slots)
        peers["trio.CapacityLimiter"] = lambda: own
    return peers


def _alone(enter: Enter) -> AsyncContender:
    """Return a contender that enters and leaves in a loop."""

    async def enter_and_leave(operations: int) -> None:
        for _ in range(operations):
            async with enter():
                pass

    return enter_and_leave


def _crowd(backend: str, enter: Enter) -> AsyncContender:
    """Return a contender with as many tasks as one slot and its waiters need.

    Each task lets the event loop run once while it holds the slot: some peers do not do this
    themselves, and would never have a waiter.
    """

    async def on_asyncio(operations: int) -> None:
        for _ in range(operations):
            async with enter():
                await asyncio.sleep(0)

    async def on_trio(operations: int) -> None:
        for _ in range(operations):
            async with enter():
                await trio.lowlevel.checkpoint()

    async def in_tasks(operations: int) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(WAITERS + 1):
                tasks.start_soon(
                    on_asyncio if backend == "asyncio" else on_trio, operations // (WAITERS + 1)
                )

    return in_tasks


def _threads(settings: Settings) -> Table:
    limiter = SyncLimiter("memory://")
    limit = ConcurrencyLimit("customer_id", max_concurrent=10)
    arguments = {"customer_id": 42}
    semaphore = threading.BoundedSemaphore(10)

    def ours(operations: int) -> None:
        for _ in range(operations):
            with limiter.hold(limit, arguments):
                pass

    def peer(operations: int) -> None:
        for _ in range(operations):
            with semaphore:
                pass

    best = compare_plain(
        {"threading.BoundedSemaphore": peer, "SyncLimiter.hold, by an argument": ours},
        1_000,
        settings,
    )
    return Table(
        "threads: take and release a slot, no waiters",
        "per operation",
        "time, to threading.BoundedSemaphore",
        cost_rows(best, "threading.BoundedSemaphore", {}),
    )
