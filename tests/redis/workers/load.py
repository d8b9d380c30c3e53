"""A process in which many calls take turns under one limit.

    load.py '{"url": ..., "async": true, "limit": {...}, "calls": 100, "at_once": 8, "body": 0.001}'

Notes the begin and the end of each body, with the time of the clock that all processes share, and
says them at the end; or, with "loud", as they happen.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hold import limit_of, say

from limiter_core import LeaseLost, Limiter, StoreError, SyncLimiter
from limiter_redis import RedisStore

bodies: list[tuple[float, float, int]] = []
failures: list[str] = []


def note(begin: float, token: int, *, loud: bool) -> None:
    """Note a body that ends now."""
    end = time.monotonic()
    bodies.append((begin, end, token))
    if loud:
        say("body", begin=begin, end=end, token=token)


def in_threads(given: dict[str, Any]) -> None:
    store = RedisStore(given["url"])
    limiter = SyncLimiter(store)
    limit = limit_of(given["limit"])
    loud = given.get("loud", False)

    def call(_: int) -> None:
        try:
            with limiter.hold(limit) as lease:
                begin = time.monotonic()
                time.sleep(given["body"])
                if not lease.lost:
                    note(begin, lease.fencing_token, loud=loud)
        except (LeaseLost, StoreError) as error:
            failures.append(repr(error))

    with ThreadPoolExecutor(given["at_once"]) as pool:
        list(pool.map(call, range(given["calls"])))
    store.close()


async def in_an_event_loop(given: dict[str, Any]) -> None:
    store = RedisStore(given["url"])
    limiter = Limiter(store)
    limit = limit_of(given["limit"])
    loud = given.get("loud", False)
    left = iter(range(given["calls"]))

    async def caller() -> None:
        for _ in left:
            try:
                async with limiter.hold(limit) as lease:
                    begin = time.monotonic()
                    await asyncio.sleep(given["body"])
                    note(begin, lease.fencing_token, loud=loud)
            except (LeaseLost, StoreError) as error:
                failures.append(repr(error))

    await asyncio.gather(*(caller() for _ in range(given["at_once"])))
    await store.aclose()


def main() -> None:
    given = json.loads(sys.argv[1])
    say("asks")
    if given.get("async"):
        asyncio.run(in_an_event_loop(given))
    else:
        in_threads(given)
    say("done", bodies=bodies, failures=failures, threads=threading.active_count())


if __name__ == "__main__":
    main()
