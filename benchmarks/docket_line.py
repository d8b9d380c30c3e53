"""Docket: tasks per second, and the speed and order of tasks that wait for one key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median, quantiles

import docket_worker
from docket_tasks import (
    KINDS,
    OURS,
    THEIRS,
    Body,
    Book,
    check,
    gaps,
    inversions,
    new_docket,
    new_worker,
    task,
)
from harness import Bar, Row, Settings, Table, rate
from redis_server import Server

_DISTINCT = 500
_EMPTY = 300
_TIMED = 200
_SECONDS = 0.01
_CREW = "four workers"


async def throughput(server: Server, settings: Settings) -> Table:
    """Measure tasks whose bodies are empty."""
    rounds = _rounds(settings)
    table = Table(
        f"one worker, empty bodies (medians of {rounds} rounds in turn)",
        "tasks per second",
        f"rate, to {THEIRS}",
    )
    for count, keys, what in (
        (_DISTINCT, _DISTINCT, f"{_DISTINCT} tasks, a key each"),
        (_EMPTY, 1, f"{_EMPTY} tasks on one key, limit 1"),
    ):
        times: dict[str, list[float]] = defaultdict(list)
        for turn in range(-1, rounds):  # the first round warms up
            for kind in _in_turn(turn):
                bodies = await _work(server, kind, count, keys)
                if turn >= 0:
                    times[kind].append(1 / _rate(bodies))
        for kind in (THEIRS, OURS):
            each, bar = times[kind], Bar(at_least=1.0) if kind == OURS else None
            value = f"{1 / median(each):,.0f}"
            table.rows.append(Row(f"{what}: {kind}", value, rate(each, times[THEIRS]), bar))
    return table


async def hand_offs(server: Server, settings: Settings) -> list[Table]:
    """Measure tasks of 10 ms on one key, with one worker and with four worker processes."""
    loop, single = "in a plain loop, without Docket", "without a limit, a worker with concurrency=1"
    chain = "without a limit, each body adds the next task"
    rounds = _rounds(settings)
    runs: dict[str, list[list[Body]]] = defaultdict(list)
    for turn in range(rounds):
        runs[loop].append(await _plain(_TIMED))
        runs[single].append(await _work(server, None, _TIMED, 1, _SECONDS))
        runs[chain].append(await _chain(server, _TIMED))
        for kind in _in_turn(turn):
            runs[kind].append(await _work(server, kind, _TIMED, 1, _SECONDS))
        for kind in _in_turn(turn) if turn < 3 else ():
            bodies = await docket_worker.run_workers(server, kind, _TIMED, _SECONDS)
            check(bodies, range(_TIMED))
            runs[f"{_CREW}, {kind}"].append(bodies)
    return [_rates(runs, rounds), _gaps(runs), _inversions(runs)]


def _rates(runs: Mapping[str, list[list[Body]]], rounds: int) -> Table:
    ideal = 1 / _SECONDS
    table = Table(
        f"{_TIMED} tasks of {_SECONDS * 1e3:.0f} ms on one key, limit 1 (medians of {rounds} "
        f"rounds in turn; 3 of the {_CREW})",
        "bodies per second",
        f"to the ideal {ideal:.0f}",
        notes=[f"the bar is of a machine on which {THEIRS} reached 79"],
    )
    for name, each in runs.items():
        middle = median(_rate(bodies) for bodies in each)
        bar = Bar(at_least=0.95) if name == OURS else None
        table.rows.append(Row(name, f"{middle:.1f}", middle / ideal, bar))
    return table


def _gaps(runs: Mapping[str, list[list[Body]]]) -> Table:
    table = Table(
        "from the end of one body to the beginning of the next",
        "time",
        f"to {THEIRS}",
        notes=[f"{_CREW}: processes, and another one takes over most of the time"],
    )
    for place in ("", f"{_CREW}, "):
        for name, percentile in (("p50", 50), ("p90", 90)):
            times = {
                kind: [
                    quantiles(gaps(bodies), n=100)[percentile - 1] for bodies in runs[place + kind]
                ]
                for kind in KINDS
            }
            for kind, each in times.items():
                bar = Bar(at_most=1.1) if kind == OURS and not place else None
                ratio = rate(times[THEIRS], each)
                value = f"{median(each) * 1e3:.2f} ms"
                table.rows.append(Row(f"{place}{kind}: {name}", value, ratio, bar))
    return table


def _inversions(runs: Mapping[str, list[list[Body]]]) -> Table:
    table = Table(
        "bodies after which one began that was added earlier; but for the first of a round",
        "of all",
        "their number",
        notes=[f"{_CREW}: the first one holds until all others wait"],
    )
    for place in ("", f"{_CREW}, "):
        for kind in KINDS:
            each = runs[place + kind]
            number, total = sum(map(inversions, each)), sum(map(len, each))
            bar = Bar(at_most=0.0) if kind == OURS else None
            table.rows.append(Row(f"{place}{kind}", f"{total:,}", number, bar))
    return table


async def _work(
    server: Server, kind: str | None, count: int, keys: int, seconds: float = 0.0
) -> list[Body]:
    """Return the bodies of one worker and so many tasks; without a limit it runs one at a time."""
    book = Book(seconds)
    function = task(kind, book.body)
    async with new_docket(server, function) as docket:
        for number in range(count):
            await docket.add(function)(number, f"key {number % keys}")
        async with new_worker(docket, concurrency=10 if kind else 1) as worker:
            await worker.run_until_finished()
    check(book.bodies, range(count))
    return book.bodies


async def _chain(server: Server, count: int) -> list[Body]:
    """Return the bodies of tasks that each add the next one to Docket's queue: the floor."""
    book = Book(_SECONDS)

    async def link(number: int, key: str) -> None:
        await book.body(number, key)
        if number + 1 < count:
            await docket.add(function)(number + 1, key)

    function = task(None, link)
    async with new_docket(server, function) as docket:
        await docket.add(function)(0, "one")
        async with new_worker(docket) as worker:
            await worker.run_until_finished()
    check(book.bodies, range(count))
    return book.bodies


async def _plain(count: int) -> list[Body]:
    book = Book(_SECONDS)
    for number in range(count):
        await book.body(number, "one")
    return book.bodies


def _rate(bodies: list[Body]) -> float:
    """Return the bodies per second, from the begin of the first to the begin of the last."""
    times = [body.began for body in bodies]
    return (len(bodies) - 1) / (max(times) - min(times))


def _in_turn(turn: int) -> list[str]:
    """Return the kinds; each round starts with a different one."""
    return list(KINDS)[:: -1 if turn % 2 else 1]


def _rounds(settings: Settings) -> int:
    return 3 if settings.quick else 7
