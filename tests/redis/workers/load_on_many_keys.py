"""A process in which many calls take turns under limits that lie all over a cluster.

    spread.py '{"url": ..., "async": true, "keys": ["a"], "lease": 2, "at_once": 8, "body": 0.001}'

Goes on until a line comes on its input. Notes the begin and the end of each body, with the time of
the clock that all processes share, and says them at the end: {key: [[begin, end, token], ...]}.
Says "round" whenever each key was served once more.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import threading
import time
from collections import defaultdict
from typing import Any

from hold import say

from limiter_core import ConcurrencyLimit, LeaseLost, Limiter, StoreError, SyncLimiter
from limiter_redis import RedisStore

bodies: defaultdict[str, list[tuple[float, float, int]]] = defaultdict(list)
failures: list[str] = []
told = threading.Event()
served: set[str] = set()
lock = threading.Lock()


def listen() -> None:
    sys.stdin.readline()
    told.set()


def note(given: dict[str, Any], key: str, begin: float, token: int) -> None:
    with lock:
        bodies[key].append((begin, time.monotonic(), token))
        served.add(key)
        if len(served) == len(given["keys"]):
            served.clear()
            say("round")


def in_threads(given: dict[str, Any], store: RedisStore, limit: ConcurrencyLimit) -> None:
    limiter = SyncLimiter(store)

    def caller(offset: int) -> None:
        for place in itertools.count(offset):
            if told.is_set():
                return
            key = given["keys"][place % len(given["keys"])]
            try:
                with limiter.hold(limit, {"key": key}) as lease:
                    begin = time.monotonic()
                    time.sleep(given["body"])
                    if not lease.lost:
                        note(given, key, begin, lease.fencing_token)
            except (LeaseLost, StoreError) as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(given["at_once"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


async def in_an_event_loop(
    given: dict[str, Any], store: RedisStore, limit: ConcurrencyLimit
) -> None:
    limiter = Limiter(store)

    async def caller(offset: int) -> None:
        for place in itertools.count(offset):
            if told.is_set():
                return
            key = given["keys"][place % len(given["keys"])]
            try:
                async with limiter.hold(limit, {"key": key}) as lease:
                    begin = time.monotonic()
                    await asyncio.sleep(given["body"])
                    note(given, key, begin, lease.fencing_token)
            except (LeaseLost, StoreError) as error:
                failures.append(repr(error))

    await asyncio.gather(*(caller(offset) for offset in range(given["at_once"])))
    await store.aclose()


def main() -> None:
    given = json.loads(sys.argv[1])
    logging.disable()  # of outages that a test makes
    threading.Thread(target=listen, daemon=True).start()
    store = RedisStore(
        given["url"],
        min_replicas=given.get("min_replicas"),
        namespace=given.get("namespace", "limiter"),
    )
    limit = ConcurrencyLimit("key", max_concurrent=1, lease=given["lease"])
    say("begins")
    if given.get("async"):
        asyncio.run(in_an_event_loop(given, store, limit))
    else:
        in_threads(given, store, limit)
    say("done", bodies=bodies, failures=failures)


if __name__ == "__main__":
    main()
