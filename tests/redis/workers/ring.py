"""A process that holds a slot of one key, and then waits for one of another.

    ring.py '{"url": ..., "async": true, "holds": "a", "waits_for": "b", "label": ...}'

It asks for the second after a line on its input. Says what happens in lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_redis import RedisStore


def say(event: str, **facts: Any) -> None:
    """Say what happened."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class Log(logging.Handler):
    """Says what is logged of rings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if "ring" in vars(record):
            say("ring", message=record.getMessage())


def in_a_thread(store: RedisStore, given: dict[str, Any]) -> None:
    limiter = SyncLimiter(store, label=given["label"])
    with limiter.hold(limit_of(given["holds"])):
        say("begins")
        sys.stdin.readline()
        with limiter.hold(limit_of(given["waits_for"])):
            say("both")


async def in_an_event_loop(store: RedisStore, given: dict[str, Any]) -> None:
    limiter = Limiter(store, label=given["label"])
    async with limiter.hold(limit_of(given["holds"])):
        say("begins")
        await asyncio.to_thread(sys.stdin.readline)
        async with limiter.hold(limit_of(given["waits_for"])):
            say("both")


def limit_of(key: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(key), on_lost="warn")


def main() -> None:
    given = json.loads(sys.argv[1])
    logging.getLogger("limiter").addHandler(Log())
    store = RedisStore(given["url"])
    if given.get("async"):
        asyncio.run(in_an_event_loop(store, given))
    else:
        in_a_thread(store, given)
    say("done")


if __name__ == "__main__":
    main()
