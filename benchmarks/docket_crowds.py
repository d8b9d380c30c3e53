"""Docket: the cost of many waiting tasks: for the tasks behind them, and in the server's memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median

from docket import Docket

from docket_tasks import (
    KINDS,
    OURS,
    THEIRS,
    Book,
    NotDoneError,
    at_work,
    check,
    new_docket,
    new_worker,
    task,
    until,
)
from harness import Bar, Row, Settings, Table, cost
from redis_server import Server

_CROWD = 10_000
_BURST = 200
_POLLS = (250, 20)
"""Milliseconds."""
_KEY = "one"
_FREE = 1_000_000
"""The first number of the tasks without a limit."""

_Task = Callable[..., Awaitable[None]]


async def crowd(server: Server, settings: Settings) -> list[Table]:
    """Measure while many tasks wait for one key."""
    count = settings.scaled(_CROWD)
    waited: dict[str, list[float]] = {}
    weights = {"in the stream, unread": 0.0}
    weights["scheduled for later, without a limit"] = await _scheduled(server, count)
    for kind in KINDS:
        waited[kind], queued, weights[kind] = await _beside(server, kind, count)
        weights["in the stream, unread"] = queued
    later = weights["scheduled for later, without a limit"]
    starts = Table(
        f"{count:,} tasks wait on one key; one without a limit is added, {len(waited[OURS])} times",
        "until it starts",
        "of one second",
    )
    for kind, times in waited.items():
        bar = Bar(at_most=1.0) if kind == OURS else None
        middle, worst = median(times), max(times)
        starts.rows += [
            Row(f"{kind}: median", f"{middle * 1e3:,.1f} ms", middle),
            Row(f"{kind}: the slowest", f"{worst * 1e3:,.1f} ms", worst, bar),
        ]
    memory = Table(
        f"memory of the server per task, {count:,} on one key (INFO used_memory)",
        "bytes",
        f"to {THEIRS}",
        [
            Row(f"waits, {name}" if name in KINDS else name, f"{each:,.0f}", each / weights[THEIRS])
            for name, each in weights.items()
        ],
    )
    memory.rows += [
        Row(
            f"the limit's part of it, {kind}: more than one scheduled",
            f"{weights[kind] - later:,.0f}",
            (weights[kind] - later) / (weights[THEIRS] - later),
        )
        for kind in KINDS
    ]
    return [starts, memory]


async def burst(server: Server, settings: Settings) -> Table:
    """Measure how long a burst of tasks that have to wait delays the task behind them."""
    table = Table(
        f"{_BURST} tasks that have to wait, then a free one (concurrency 10)",
        "until it starts",
        f"time, to {THEIRS}",
        notes=["the poll is minimum_check_interval, and scheduling_resolution as well"],
    )
    for poll in _POLLS:
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(1 if settings.quick else 3):
            for kind in list(KINDS)[:: -1 if turn % 2 else 1]:
                times[kind].append(await _behind(server, kind, timedelta(milliseconds=poll)))
        for kind, each in times.items():
            bar = Bar(at_most=1.05) if kind == OURS else None
            name = f"poll of {poll} ms, {kind}"
            table.rows.append(
                Row(name, f"{median(each):.3f} s", cost(each, times[THEIRS]), bar),
            )
    return table


async def _behind(server: Server, kind: str, poll: timedelta) -> float:
    """Return the seconds from the first body of a burst to the body of the task behind it."""
    book = Book()
    limited, free = task(kind, book.hold), task(None, book.body)
    async with new_docket(server, limited, free) as docket:
        await _add(docket, limited, range(_BURST + 1))  # one of them holds
        await docket.add(free)(_FREE, "free")
        async with at_work(new_worker(docket, poll=poll, schedule=poll), book) as running:
            await until(lambda: _FREE in book.began, running, "the free one began")
            held = [at for number, at in book.began.items() if number != _FREE]
            if len(held) != 1:
                raise NotDoneError(f"{len(held)} hold the slot")
            book.go_on.set()
            await until(lambda: len(book.bodies) == _BURST + 2, running, "all of the burst ran")
    check(book.bodies, [*range(_BURST + 1), _FREE])
    return book.began[_FREE] - held[0]


async def _beside(server: Server, kind: str, count: int) -> tuple[list[float], float, float]:
    """Return when free tasks began, and the bytes of a task before and after parking."""
    book = Book()
    limited, free = task(kind, book.hold), task(None, book.body)
    times: list[float] = []
    async with new_docket(server, limited, free) as docket:
        await docket.add(limited)(0, _KEY)
        async with at_work(new_worker(docket), book) as running:
            await until(lambda: bool(book.began), running, "the first began")
        # Its worker has ended, so memory is measured while no worker reads; the next task holds.
        empty = await _memory(server)
        await _add(docket, limited, range(1, count + 2))
        if (there := server.admin.xlen(docket.stream_key)) != count + 1:
            raise NotDoneError(f"{there:,} tasks are in the stream")
        queued = (await _memory(server) - empty) / count
        book.go_on.clear()
        async with at_work(new_worker(docket), book) as running:
            # The waiting tasks have left the stream; the task that holds has not.
            await until(
                lambda: server.admin.xlen(docket.stream_key) <= 1, running, "all wait", every=0.1
            )
            await asyncio.sleep(1)
            if len(book.began) != 2:
                raise NotDoneError(f"{len(book.began) - 1} hold the slot")
            parked = (await _memory(server) - empty) / count
            for number in range(_FREE, _FREE + 10):
                added = time.perf_counter()
                await docket.add(free)(number, "free")
                await until(
                    partial(book.began.__contains__, number), running, "it began", every=0.002
                )
                times.append(book.began[number] - added)
                await asyncio.sleep(0.1)
    check(book.bodies, [*list(book.began)[:2], *range(_FREE, _FREE + 10)])
    return times, queued, parked


async def _scheduled(server: Server, count: int) -> float:
    """Return the bytes of a task that Docket has scheduled for later."""
    free = task(None, Book().body)
    async with new_docket(server, free) as docket:
        empty = await _memory(server)
        await _add(docket, free, range(count), datetime.now(UTC) + timedelta(hours=1))
        return (await _memory(server) - empty) / count


async def _add(
    docket: Docket, function: _Task, numbers: range, when: datetime | None = None
) -> None:
    await docket.add_many(docket.call(function, when=when)(number, _KEY) for number in numbers)


async def _memory(server: Server) -> int:
    """Return the bytes in use: the minimum of several samples, since a worker's reads add to it."""
    looks: list[int] = []
    for _ in range(20):
        looks.append(int(server.admin.info("memory")["used_memory"]))
        await asyncio.sleep(0.025)
    return min(looks)
