"""Redis: taking and releasing a slot over a server, compared with other packages on that server.

The floor is what no limiter can beat: two round trips of a script that does nothing, through
redis-py, the client that the store itself uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from statistics import median
from typing import Any, NamedTuple

import redis
import redis.asyncio

import redis_hand_off
import redis_peers
from harness import (
    AsyncContender,
    Bar,
    Contender,
    Row,
    Settings,
    Table,
    cost,
    in_turns,
    in_turns_plain,
    microseconds,
    rate,
)
from limiter_core import ConcurrencyLimit, SyncLimiter
from limiter_redis import RedisStore
from redis_peers import Enter, MissingError
from redis_server import NoServerError, Server, open_limiter, open_server

OURS = "Limiter.hold"
FLOOR = "two bare EVALSHA of `return 1`"
LOCK = "redis-py's asyncio Lock"
TASKS = 50
WAITERS = 20
LIMIT = ConcurrencyLimit("customer_id", max_concurrent=1)


def tables(settings: Settings) -> list[Table]:
    """Measure on one server, or report why there is none."""
    try:
        with open_server() as server:
            print(f"Redis on {server}", end="\n\n", flush=True)
            return [
                asyncio.run(_one_task(server, settings)),
                _one_thread(server, settings),
                *asyncio.run(_many_tasks(server, settings)),
                *asyncio.run(_waiting_tasks(server, settings)),
                asyncio.run(redis_hand_off.table(server, settings)),
            ]
    except NoServerError as error:
        return [Table("Redis", "", "", notes=[str(error)])]


def rounds(settings: Settings) -> int:
    """Return the number of rounds: an odd number, for the median."""
    return 5 if settings.quick else 15


async def _one_task(server: Server, settings: Settings) -> Table:
    async with open_limiter(server.url, server.namespace) as limiter, _client(server) as client:
        contenders: dict[str, AsyncContender] = {
            FLOOR: await _floor(client),
            OURS: _alone(lambda: limiter.hold(LIMIT, {"customer_id": 42})),
            LOCK: _alone(lambda: client.lock(f"{server.namespace}:lock", timeout=30)),
        }
        times = await in_turns(contenders, 100 if settings.quick else 300, rounds(settings))
    return Table(
        "one task: take and release a slot, no waiters",
        "per operation",
        f"time, to {FLOOR}",
        _costs(times, FLOOR, {OURS: Bar(at_most=1.25)}),
    )


def _one_thread(server: Server, settings: Settings) -> Table:
    client: Any = redis.Redis.from_url(server.url)  # pyright: ignore[reportUnknownMemberType]
    sha = client.script_load("return 1")
    arguments = {"customer_id": 42}
    table = Table(
        "one thread: take and release a slot, no waiters",
        "per operation",
        f"time, to {FLOOR}",
    )

    def floor(operations: int) -> None:
        for _ in range(operations):
            client.evalsha(sha, 1, server.namespace)
            client.evalsha(sha, 1, server.namespace)

    def lock(operations: int) -> None:
        for _ in range(operations):
            with client.lock(f"{server.namespace}:lock", timeout=30):
                pass

    store = RedisStore(server.url, namespace=server.namespace)
    with closing(store), SyncLimiter(store) as limiter:

        def ours(operations: int) -> None:
            for _ in range(operations):
                with limiter.hold(LIMIT, arguments):
                    pass

        contenders: dict[str, Contender] = {
            FLOOR: floor,
            "SyncLimiter.hold": ours,
            "redis-py's Lock": lock,
        }
        try:
            enter = redis_peers.dramatiq(server)

            def dramatiq(operations: int) -> None:
                for _ in range(operations):
                    with enter():
                        pass

            contenders["dramatiq's ConcurrentRateLimiter"] = dramatiq
        except MissingError as missing:
            table.notes.append(str(missing))
        times = in_turns_plain(contenders, 100 if settings.quick else 300, rounds(settings))
    client.close()
    table.rows += _costs(times, FLOOR, {})
    return table


async def _many_tasks(server: Server, settings: Settings) -> list[Table]:
    table = Table(
        f"{TASKS} tasks on {TASKS} keys: take and release a slot",
        "pairs per second",
        f"rate, to {LOCK}",
    )
    npm = {f"npm's redis-semaphore, {kind}": kind for kind in ("Semaphore", "Mutex")}
    bars = dict.fromkeys(npm, 1.0)
    async with AsyncExitStack() as stack:
        ours = open_limiter(server.url, server.namespace)
        limiter = await stack.enter_async_context(ours)
        client = await stack.enter_async_context(_client(server))
        contenders: dict[str, AsyncContender] = {
            LOCK: _side_by_side(
                [
                    lambda key=f"{server.namespace}:lock:{number}": client.lock(key, timeout=30)
                    for number in range(TASKS)
                ]
            ),
            OURS: _side_by_side(
                [
                    lambda number=number: limiter.hold(LIMIT, {"customer_id": number})
                    for number in range(TASKS)
                ]
            ),
        }
        try:
            for name, kind in npm.items():
                peer = redis_peers.redis_semaphore(server, kind, TASKS)
                contenders[name] = await stack.enter_async_context(peer)
        except MissingError as missing:
            table.notes.append(str(missing))
        slow = await _add_python_peers(stack, server, "keys", TASKS, contenders)
        operations = TASKS * (20 if settings.quick else 60)
        times = await in_turns(contenders, operations, rounds(settings))
        table.rows += _rates(times, LOCK, {OURS: Bar(at_least=8.0)})
        bars |= dict.fromkeys(redis_peers.PYTHON_PEERS, 9.0)
        table.rows += _beside(times, bars)
        table.rows += await _slow_rows(slow.contenders, 2 * TASKS, times)
        table.notes += slow.missing
        on_server = await _server_times(server, contenders | slow.contenders, 2 * TASKS)
    return [table, on_server]


async def _waiting_tasks(server: Server, settings: Settings) -> list[Table]:
    peer = "self-limiters' Semaphore"
    table = Table(
        f"one slot, {WAITERS} tasks of one process wait: hand it on",
        "hand-offs per second",
        f"rate, to {OURS}",
    )
    async with (
        AsyncExitStack() as stack,
        open_limiter(server.url, server.namespace) as limiter,
    ):
        contenders = {OURS: _crowd(lambda: limiter.hold(LIMIT, {"customer_id": 42}))}
        try:
            contenders[peer] = _crowd(redis_peers.self_limiters(server, WAITERS))
        except MissingError as missing:
            table.notes.append(str(missing))
        slow = await _add_python_peers(stack, server, "crowd", WAITERS + 1, contenders)
        operations = (WAITERS + 1) * (10 if settings.quick else 30)
        times = await in_turns(contenders, operations, rounds(settings))
        table.rows += _rates(times, OURS, {})
        bars = dict.fromkeys(redis_peers.PYTHON_PEERS, 3.0)
        table.rows += _beside(times, {peer: 4.0, **bars})
        table.rows += await _slow_rows(slow.contenders, 2 * (WAITERS + 1), times)
        table.notes += slow.missing
        operations = 2 * (WAITERS + 1)
        on_server = await _server_times(server, contenders | slow.contenders, operations)
    return [table, on_server]


class SlowPeers(NamedTuple):
    """Peers that are not measured in turn with the others, and why others are missing."""

    contenders: dict[str, AsyncContender]
    missing: list[str]


async def _add_python_peers(
    stack: AsyncExitStack,
    server: Server,
    load: str,
    tasks: int,
    contenders: dict[str, AsyncContender],
) -> SlowPeers:
    """Add the peers that have environments of their own; returns the slow ones."""
    slow = SlowPeers({}, [])
    for name in redis_peers.PYTHON_PEERS:
        try:
            peer = redis_peers.python_peer(server, name, load, tasks)
            where = slow.contenders if name in redis_peers.SLOW_PEERS else contenders
            where[name] = await stack.enter_async_context(peer)
        except MissingError as missing:
            slow.missing.append(str(missing))
    return slow


async def _slow_rows(
    slow: Mapping[str, AsyncContender], operations: int, times: Mapping[str, list[float]]
) -> list[Row]:
    rows: list[Row] = []
    for name, contender in slow.items():
        ((seconds,),) = (await in_turns({name: contender}, operations, 1)).values()
        value = f"{1 / seconds:,.0f}"
        rows.append(Row(f"{OURS}, to {name} (one round)", value, seconds / median(times[OURS])))
    return rows


def _beside(times: Mapping[str, list[float]], bars: Mapping[str, float]) -> list[Row]:
    """Return a row for each peer of the bars that was measured: our rate, to its rate."""
    return [
        Row(f"{OURS}, to {name}", "", rate(times[OURS], times[name]), Bar(at_least=bar))
        for name, bar in bars.items()
        if name in times
    ]


async def _server_times(
    server: Server, contenders: Mapping[str, AsyncContender], operations: int
) -> Table:
    """Measure what a step costs the server; an operation has two: take a slot, and release it."""
    table = Table(
        "the same, on the server: its time per step",
        "scripts; CPU",
        f"time in scripts (INFO commandstats), to {OURS}; CPU is all that the server does",
    )
    steps = 2 * operations
    spent: dict[str, tuple[float, float]] = {}
    for name, contender in contenders.items():
        before, cpu_before = server.script_calls(), server.cpu()
        await contender(operations)
        scripts, cpu = server.script_calls().since(before), server.cpu() - cpu_before
        spent[name] = scripts.microseconds / steps, cpu * 1e6 / steps
    for name, (in_scripts, cpu) in spent.items():
        value = f"{in_scripts:.1f} µs; {cpu:.0f} µs"
        table.rows.append(Row(name, value, in_scripts / spent[OURS][0]))
    return table


def _client(server: Server) -> Any:
    client: Any = redis.asyncio.Redis
    return client.from_url(server.url)


async def _floor(client: Any) -> AsyncContender:
    sha = await client.script_load("return 1")

    async def twice(operations: int) -> None:
        for _ in range(operations):
            await client.evalsha(sha, 0)
            await client.evalsha(sha, 0)

    return twice


def _alone(enter: Enter) -> AsyncContender:
    """Return a contender that enters and leaves in a loop."""

    async def enter_and_leave(operations: int) -> None:
        for _ in range(operations):
            async with enter():
                pass

    return enter_and_leave


def _side_by_side(enters: list[Enter]) -> AsyncContender:
    """Return a contender in which so many tasks enter and leave at the same time."""

    async def in_tasks(operations: int) -> None:
        share = max(1, operations // len(enters))
        await asyncio.gather(*(_alone(enter)(share) for enter in enters))

    return in_tasks


def _crowd(enter: Enter) -> AsyncContender:
    """Return a contender with as many tasks as one slot and its waiters need."""

    async def one(operations: int) -> None:
        for _ in range(operations):
            async with enter():
                await asyncio.sleep(0)

    async def in_tasks(operations: int) -> None:
        share = max(1, operations // (WAITERS + 1))
        await asyncio.gather(*(one(share) for _ in range(WAITERS + 1)))

    return in_tasks


def _costs(times: Mapping[str, list[float]], peer: str, bars: Mapping[str, Bar]) -> list[Row]:
    return [
        Row(name, microseconds(median(each)), cost(each, times[peer]), bars.get(name))
        for name, each in times.items()
    ]


def _rates(times: Mapping[str, list[float]], peer: str, bars: Mapping[str, Bar]) -> list[Row]:
    if len(times) == 1:  # the peer is missing
        return [Row(name, f"{1 / median(each):,.0f}") for name, each in times.items()]
    return [
        Row(name, f"{1 / median(each):,.0f}", rate(each, times[peer]), bars.get(name))
        for name, each in times.items()
    ]
