"""Growth: the memory that many keys leave, and the cost of many waiters."""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel

from harness import Bar, Row, Settings, Table, microseconds
from limiter_core import ConcurrencyLimit, ConflictResolution, Limiter
from limiter_core.requests import Answer, Demand, Loss, Request
from limiter_memory import MemoryStore

KEYS = 1_000_000
CROWDS = (1_000, 10_000, 100_000)
STEPS = 500
"""Operations that are timed while many wait: so few that the number of waiters hardly changes."""


def tables(settings: Settings) -> list[Table]:
    """Measure what remains and what grows."""
    return [
        anyio.run(_idle_keys, settings),
        _waiters(settings),
        anyio.run(_waiting_tasks, settings),
    ]


# -- keys ------------------------------------------------------------------------------------------


async def _idle_keys(settings: Settings) -> Table:
    limiter = Limiter("memory://")
    limit = ConcurrencyLimit("customer_id", max_concurrent=1)
    count = settings.scaled(KEYS)

    async def use(first: int, keys: int) -> None:
        for customer_id in range(first, first + keys):
            async with limiter.hold(limit, {"customer_id": customer_id}):
                pass

    async def contend(first: int, keys: int) -> None:
        """Use keys for which a second call waits for the first, and a third gives up."""
        for customer_id in range(first, first + keys):
            arguments = {"customer_id": customer_id}
            async with anyio.create_task_group() as tasks, limiter.hold(limit, arguments):
                tasks.start_soon(use, customer_id, 1)
                assert await limiter.try_acquire(limit, arguments) is None
                await anyio.lowlevel.checkpoint()

    table = Table(
        "memory: what distinct keys leave behind when they are idle again",
        "kept in all",
        "blocks of memory kept, per key",
    )
    for name, work, keys in (
        (f"{count:,} keys, used once", use, count),
        (f"{count // 20:,} keys, waited for", contend, count // 20),
    ):
        await work(-2_000, 2_000)  # fills caches and pools, which are not a leak
        blocks, resident = _memory()
        await work(0, keys)
        blocks_after, resident_after = _memory()
        kept = blocks_after - blocks
        value = f"{kept:,} blocks, {(resident_after - resident) // 1024:+,} KiB resident"
        table.rows.append(Row(name, value, max(0, kept) / keys, Bar(at_most=0.01)))
    left = [key async for key in limiter.keys()]
    table.rows.append(Row("keys the store still knows", f"{len(left):,}"))
    return table


def _memory() -> tuple[int, int]:
    """Return the blocks that Python allocated, and the resident bytes of the process (0: unknown).

    The blocks are exact, and a key that is kept needs several; the resident size gives the scale.
    """
    gc.collect()
    statm = Path("/proc/self/statm")
    resident = 0
    if statm.exists():
        resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return sys.getallocatedblocks(), resident


# -- waiters ---------------------------------------------------------------------------------------


def _waiters(settings: Settings) -> Table:
    crowds = CROWDS[:2] if settings.quick else CROWDS
    table = Table(
        "memory store: one key with many waiters, per step of the store",
        "per step",
        f"time, to that with {crowds[0]:,} waiters",
    )
    for what, order in (("in arrival order", _plain), ("by priority, in fair turns", _ranked)):
        measured = [_steps_beside(count, order, settings) for count in crowds]
        for index, step in enumerate(("join", "leave from the middle", "hand on and take up")):
            for count, costs in zip(crowds, measured, strict=True):
                ratio = costs[index] / measured[0][index]
                # log(100,000) is 1.7 times log(1,000); the rest is for cache misses.
                bar = None if count == crowds[0] else Bar(at_most=3.0)
                table.rows.append(
                    Row(f"{step}, {what}, {count:,}", microseconds(costs[index]), ratio, bar)
                )
    return table


def _plain(_: random.Random) -> Demand:
    return Demand("customer_id=42", 1)


def _ranked(chance: random.Random) -> Demand:
    return Demand(
        "customer_id=42",
        1,
        on_conflict=ConflictResolution.PRIORITY,
        priority=chance.randrange(10),
        group=f"tenant={chance.randrange(100)}",
    )


class _Waiter:
    """A waiter in this process; records that its turn has come."""

    def __init__(self, turns: list[str], request_id: str) -> None:
        self._turns = turns
        self._id = request_id

    def look_again(self, answer: Answer | None = None) -> bool:  # noqa: ARG002
        self._turns.append(self._id)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Nothing is renewed here."""

    def lease_lost(self, loss: Loss) -> None:
        """Nothing is lost here."""


def _steps_beside(
    waiters: int, demand: Callable[[random.Random], Demand], settings: Settings
) -> tuple[float, float, float]:
    """Return the seconds for a newcomer to join, for one to leave, and for a hand-off."""
    best = [float("inf")] * 3
    for _ in range(2 if settings.quick else 5):
        chance = random.Random(7)
        turns: list[str] = []
        requests = {
            name: Request(name, (demand(chance),), listener=_Waiter(turns, name))
            for name in map(str, range(waiters + STEPS + 1))
        }
        newcomers = [requests[str(waiters + 1 + number)] for number in range(STEPS)]
        leaving = [str(number) for number in chance.sample(range(1, waiters + 1), STEPS)]
        store = MemoryStore()
        for number in range(waiters + 1):
            store.acquire(requests[str(number)])  # the first holds, the others wait

        started = time.perf_counter()
        for request in newcomers:
            store.acquire(request)
        best[0] = min(best[0], (time.perf_counter() - started) / STEPS)

        started = time.perf_counter()
        for request_id in leaving:
            store.release(request_id)
        best[1] = min(best[1], (time.perf_counter() - started) / STEPS)

        holder = "0"
        started = time.perf_counter()
        for _ in range(STEPS):
            store.release(holder)
            holder = turns.pop()
            store.acquire(requests[holder])
        best[2] = min(best[2], (time.perf_counter() - started) / STEPS)
    return best[0], best[1], best[2]


async def _waiting_tasks(settings: Settings) -> Table:
    crowds = CROWDS[:2] if settings.quick else CROWDS
    table = Table(
        "asyncio: one slot goes through as many waiting tasks",
        "per hand-off",
        f"time, to that with {crowds[0]:,} tasks",
    )
    limiter = Limiter("memory://")
    limit = ConcurrencyLimit("customer_id", max_concurrent=1)
    first = 0.0
    for count in crowds:
        best = float("inf")
        for _ in range(1 if count == CROWDS[-1] else 3):
            best = min(best, await _drain(limiter, limit, count))
        first = first or best
        bar = None if count == crowds[0] else Bar(at_most=3.0)
        table.rows.append(Row(f"{count:,} tasks", microseconds(best), best / first, bar))
    return table


async def _drain(limiter: Limiter, limit: ConcurrencyLimit, count: int) -> float:
    """Return the seconds per hand-off, from the first release to the last task's end."""
    arguments = {"customer_id": 42}
    started = 0.0

    async def wait_and_leave() -> None:
        async with limiter.hold(limit, arguments):
            pass

    async with anyio.create_task_group() as tasks:
        lease = await limiter.acquire(limit, arguments)
        for _ in range(count):
            tasks.start_soon(wait_and_leave)
        while (await limiter.inspect(limit, arguments)).waiting < count:
            await anyio.lowlevel.checkpoint()
        started = time.perf_counter()
        await lease.release()
    return (time.perf_counter() - started) / count
