"""From one process to another: the time from a release to the body in the other process.

Two processes take turns on one slot. Each records when it releases and when it enters, by the
monotonic clock, which all processes of a machine share. Run as a script, it is the second process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypedDict

import redis.asyncio

from harness import Bar, Row, Settings, Table, microseconds
from limiter_core import ConcurrencyLimit
from redis_server import Server, open_limiter

_LIMIT = ConcurrencyLimit("customer_id", max_concurrent=1)
_ARGUMENTS = {"customer_id": "two processes"}
_SETTLE = 0.003
"""Seconds from the arrival of the waiter to the release, so that the arrival has no effect."""


class Notes(TypedDict):
    """The records of one process. Times are nanoseconds; `pings` are durations of a PING."""

    entered: list[int]
    released: list[int]
    pings: list[int]


async def table(server: Server, settings: Settings) -> Table:
    """Measure between this process and a second process."""
    turns = 30 if settings.quick else 150
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__)),
        *(server.url, server.namespace, str(turns)),
        stdout=asyncio.subprocess.PIPE,
    )
    here = await _take_turns(server.url, server.namespace, turns)
    said, _ = await other.communicate()
    there: Notes = json.loads(said)

    hand_offs = sorted(_between(here, there) + _between(there, here))
    pings = here["pings"] + there["pings"]
    ping = median(pings)
    ninety_fifth = quantiles(hand_offs, n=20)[-1]
    return Table(
        "two processes: from a release in one to the body in the other",
        "p50",
        "time, to the PING",
        [
            Row("PING, through redis-py on asyncio", microseconds(ping / 1e9), 1.0),
            Row(
                f"hand-off, {len(hand_offs)} of them",
                microseconds(median(hand_offs) / 1e9),
                median(hand_offs) / ping,
                Bar(at_most=4.0),
            ),
            Row("hand-off, p95", microseconds(ninety_fifth / 1e9), ninety_fifth / ping),
        ],
    )


def _between(one: Notes, other: Notes) -> list[int]:
    """Return the times from a release in one process to the next entry in the other."""
    events = sorted(
        [(at, 0) for at in one["released"]]
        + [(at, 1) for at in one["entered"]]
        + [(at, 2) for at in other["entered"]]
    )
    return [
        after - before
        for (before, kind), (after, next_kind) in pairwise(events)
        if kind == 0 and next_kind == 2
    ]


async def _take_turns(url: str, namespace: str, turns: int) -> Notes:
    notes = Notes(entered=[], released=[], pings=[])
    redis_client: Any = redis.asyncio.Redis
    async with open_limiter(url, namespace) as limiter, redis_client.from_url(url) as client:
        for turn in range(turns):
            async with limiter.hold(_LIMIT, _ARGUMENTS):
                notes["entered"].append(time.monotonic_ns())
                sent = time.monotonic_ns()
                await client.ping()
                notes["pings"].append(time.monotonic_ns() - sent)
                # The last turn of the other process may be over: then no waiter comes any more.
                give_up_at = time.monotonic() + (20.0 if turn == 0 else 1.0)
                while (await limiter.inspect(_LIMIT, _ARGUMENTS)).waiting == 0:
                    if time.monotonic() > give_up_at:
                        return notes
                    await asyncio.sleep(0.002)
                await asyncio.sleep(_SETTLE)
                notes["released"].append(time.monotonic_ns())
    return notes


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_take_turns(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
