"""A process that holds a slot until it is told to let go.

    hold.py '{"url": ..., "async": true, "limit": {...}}'

Says what happens in lines of JSON, with the time of the clock that all processes share. A line on
its input makes it let go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    LeaseLost,
    Limiter,
    LimiterError,
    SyncLimiter,
)
from limiter_redis import RedisStore


def say(event: str, **facts: Any) -> None:
    """Tell the test what happened."""
    line = json.dumps({"event": event, "at": time.monotonic(), **facts})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def limit_of(given: dict[str, Any]) -> ConcurrencyLimit:
    """Return the limit that the test describes."""
    resolution = ConflictResolution(given.pop("on_conflict", "queue"))
    return ConcurrencyLimit(LIMIT_BY.constant("work"), on_conflict=resolution, **given)


told = threading.Event()
wakes: list[Callable[[], object]] = [told.set]


def listen() -> None:
    sys.stdin.readline()
    for wake in wakes:
        wake()


def in_a_thread(store: RedisStore, limit: ConcurrencyLimit) -> None:
    limiter = SyncLimiter(store)
    with limiter.hold(limit) as lease:
        say("begins", id=lease.id, token=lease.fencing_token)
        while not told.wait(0.005):
            lease.check()
        say("ends", id=lease.id)


async def in_an_event_loop(store: RedisStore, limit: ConcurrencyLimit) -> None:
    let_go = asyncio.Event()
    wakes.append(partial(asyncio.get_running_loop().call_soon_threadsafe, let_go.set))
    limiter = Limiter(store)
    async with limiter.hold(limit) as lease:
        say("begins", id=lease.id, token=lease.fencing_token)
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise
        say("ends", id=lease.id)


def main() -> None:
    given = json.loads(sys.argv[1])
    logging.disable()  # a lost lease is logged, too
    threading.Thread(target=listen, daemon=True).start()
    store = RedisStore(given["url"], namespace=given.get("namespace", "limiter"))
    limit = limit_of(given["limit"])
    say("asks")
    try:
        if given.get("async"):
            asyncio.run(in_an_event_loop(store, limit))
        else:
            in_a_thread(store, limit)
    except LeaseLost as error:
        say("lost", error=type(error).__name__, why=str(error))
    except LimiterError as error:
        say("refused", error=type(error).__name__)
    say("done")


if __name__ == "__main__":
    main()
