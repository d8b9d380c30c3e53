"""Redis: the cost of many idle waiters, the memory of a slot, and what grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from statistics import median

from harness import Bar, Row, Settings, Table, microseconds
from limiter_core import ConcurrencyLimit, Limiter
from limiter_core.requests import Answer, Demand, Loss, Request
from limiter_core.store import AsyncStore
from limiter_redis import RedisStore
from redis_server import NoServerError, Server, open_limiter, open_server

CROWDS = (100, 10_000)
SIZES = (1, 1_000, 100_000)
WEIGHED = 10_000
HEARTBEAT = 0.1
"""Seconds between two heartbeats of the process's lease renewer."""
LONG = 3600.0
"""A lease that is so long that it is not renewed during the measurement."""


def tables(settings: Settings) -> list[Table]:
    """Measure on one server, or report why there is none."""
    try:
        with open_server() as server:
            return [
                asyncio.run(_idle_crowds(server, settings)),
                asyncio.run(_memory(server, settings)),
                asyncio.run(_steps(server, settings)),
            ]
    except NoServerError as error:
        return [Table("Redis: growth", "", "", notes=[str(error)])]


# -- waiting ---------------------------------------------------------------------------------------


async def _idle_crowds(server: Server, settings: Settings) -> Table:
    seconds = 4.0 if settings.quick else 12.0
    table = Table(
        f"tasks of one process wait for one slot, and nothing changes for {seconds:.0f} s",
        "measured",
        f"calls: per heartbeat of {HEARTBEAT} s; CPU: % of one",
    )
    for count in CROWDS[-1:] if settings.quick else CROWDS:
        calls, own, servers = await _idle(server, count, seconds)
        tasks = f"{count:,} tasks"
        table.rows += [
            Row(
                f"{tasks}: calls to the server",
                f"{calls:.1f} /s",
                calls * HEARTBEAT,
                Bar(at_most=3.0),  # a call renews at most 128
            ),
            Row(f"{tasks}: CPU of the process", f"{own:.1%}", own * 100, Bar(at_most=5.0)),
            Row(f"{tasks}: CPU of the server's script", f"{servers:.1%}", servers * 100),
        ]
    return table


async def _idle(server: Server, count: int, seconds: float) -> tuple[float, float, float]:
    """Return the calls per second, and the CPU share of the process and of the script."""
    limit = ConcurrencyLimit("customer_id", max_concurrent=1)
    arguments = {"customer_id": 42}
    async with open_limiter(server.url, server.namespace) as limiter:
        lease = await limiter.acquire(limit, arguments)
        tasks = [asyncio.create_task(_wait(limiter, limit, arguments)) for _ in range(count)]
        while (await limiter.inspect(limit, arguments)).waiting < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(5.0)  # until the renewals are evenly spread

        calls, used, started = server.script_calls(), time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - started
        used, done = time.process_time() - used, server.script_calls().since(calls)

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await lease.release()
    return done.number / took, used / took, done.microseconds / 1e6 / took


async def _wait(limiter: Limiter, limit: ConcurrencyLimit, arguments: dict[str, int]) -> None:
    async with limiter.hold(limit, arguments):
        pass


# -- memory ----------------------------------------------------------------------------------------


class _Listener:
    """A waiter or holder in this process that ignores all notifications."""

    def look_again(self, answer: Answer | None = None) -> bool:  # noqa: ARG002
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Nothing to do."""

    def lease_lost(self, loss: Loss) -> None:
        """Nothing to do."""


async def _memory(server: Server, settings: Settings) -> Table:
    count = 2_000 if settings.quick else WEIGHED
    table = Table(
        f"memory of the server, {count:,} of each (INFO used_memory)",
        "per slot or ticket",
        "bytes",
    )
    slot, ticket = Bar(at_most=350), Bar(at_most=600)
    store = RedisStore(server.url, namespace=server.namespace)
    face = store.async_face()
    try:
        await _ask(face, [_request("first", "first", 1)])  # loads the script
        for what, keys, limit in (
            ("a key each", [f"customer_id={number}" for number in range(count)], 1),
            ("all on one key", ["customer_id=42"] * count, count),
        ):
            holders = [_request(f"{_PREFIX}-{n}", key, limit) for n, key in enumerate(keys)]
            waiters = [_request(f"{_PREFIX}-{count + n}", key, limit) for n, key in enumerate(keys)]
            empty = server.memory()
            await _ask(face, holders)
            held = server.memory()
            await _ask(face, waiters)
            waited = server.memory()
            await _let_go(face, [*waiters, *holders])
            left = server.memory() - empty
            for name, more, bar in (
                ("held slot", held - empty, slot),
                ("waiting ticket", waited - held, ticket),
            ):
                table.rows.append(Row(f"{name}, {what}", f"{more:,} B", more / count, bar))
            table.rows.append(Row(f"after the last release, {what}", f"{left:,} B", left / count))
        await _let_go(face, [_request("first", "first", 1)])
        kept = len(server.keys())
        table.rows.append(Row("keys after the last release", f"{kept}", kept, Bar(at_most=0)))
    finally:
        await face.aclose()
    return table


_PREFIX = "0123456789abcdef"
"""As long as the prefix of the ids that a limiter makes."""


def _request(request_id: str, key: str, limit: int, *, lease: float = LONG) -> Request:
    listener = _Listener()
    label = "a-host-name:12345"
    return Request(request_id, (Demand(key, limit),), lease, label=label, listener=listener)


async def _ask(face: AsyncStore, requests: Iterable[Request]) -> None:
    await asyncio.gather(*(face.acquire(request) for request in requests))


async def _let_go(face: AsyncStore, requests: Iterable[Request]) -> None:
    await asyncio.gather(*(face.release(each.id, (each.demands[0].key,)) for each in requests))


# -- growth ----------------------------------------------------------------------------------------


async def _steps(server: Server, settings: Settings) -> Table:
    sizes = (1, 1_000, 10_000) if settings.quick else SIZES
    table = Table(
        "one key with many holders or waiters, per step of the script (INFO commandstats)",
        "per step",
        "time, to that with 1",
    )
    for crowd in ("holders", "waiters"):
        measured = [await _beside(server, crowd, size, settings) for size in sizes]
        for index, step in enumerate(("acquire", "release", "hand on and take up")):
            if crowd == "holders" and index == 2:
                continue
            for size, costs in zip(sizes, measured, strict=True):
                bar = None if size == 1 else Bar(at_most=1.5)
                name = f"{step}, beside {size:,} {crowd}"
                ratio = costs[index] / measured[0][index]
                table.rows.append(Row(name, microseconds(costs[index]), ratio, bar))
    return table


async def _beside(
    server: Server, crowd: str, size: int, settings: Settings
) -> tuple[float, float, float]:
    """Return the server's seconds for a newcomer to join, for it to leave, and for a hand-off.

    The newcomer is one more holder, or one more waiter.
    """
    waiting = crowd == "waiters"
    limit = 1 if waiting else size + 1
    key = f"{crowd}={size}"
    store = RedisStore(server.url, namespace=server.namespace)
    face = store.async_face()

    def request(name: str) -> Request:
        # No listener: renewing 100,000 tickets would disturb the measurement.
        return Request(name, (Demand(key, limit),), LONG)

    try:
        if waiting:
            await face.acquire(request("holder"))
        for start in range(0, size, 5_000):
            names = [str(number) for number in range(start, min(size, start + 5_000))]
            await _ask(face, map(request, names))

        samples: tuple[list[float], ...] = ([], [], [])
        for turn in range(5 if settings.quick else 15):
            names = [f"new-{turn}-{number}" for number in range(20)]
            samples[0].append(
                await _per_step(server, [face.acquire(request(each)) for each in names])
            )
            samples[1].append(
                await _per_step(server, [face.release(each, (key,)) for each in names])
            )
        if waiting:
            holder = "holder"
            for turn in range(min(size, 100)):
                calls = server.script_calls()
                await face.release(holder, (key,))
                holder = str(turn)
                await face.acquire(request(holder))
                samples[2].append(server.script_calls().since(calls).microseconds / 1e6)
    finally:
        server.clear()
        await face.aclose()
    return _middle(samples[0]), _middle(samples[1]), _middle(samples[2])


async def _per_step(server: Server, steps: Sequence[Awaitable[object]]) -> float:
    calls = server.script_calls()
    for step in steps:  # one after another, so that each is a call of its own
        await step
    done = server.script_calls().since(calls)
    return done.microseconds / 1e6 / done.number


def _middle(samples: Sequence[float]) -> float:
    return median(samples) if samples else 0.0
