"""Short-lived processes on one key: the time from a release to the first call of the next process.

    python benchmarks/first_calls.py [processes]

If a first call imports, makes or resolves something between the grant and the body, all waiters
wait longer. Each process makes a limiter, waits, holds the slot once, and ends.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("first"))
SETTLED = 0.5
"""Seconds after which the waiter is subscribed; until then it checks the store itself."""


async def hold_once(url: str) -> None:
    """Hold the slot, and print the time of the begin."""
    async with Limiter(url) as limiter, limiter.hold(LIMIT):
        began = time.monotonic()
    print(began)


async def hand_over(url: str, count: int) -> list[float]:
    """Hand the slot to so many processes, one after another; return each delay in milliseconds."""
    took: list[float] = []
    async with Limiter(url) as limiter:
        for _ in range(count):
            async with limiter.hold(LIMIT):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, __file__, "hold", url, stdout=subprocess.PIPE
                )
                while (await limiter.inspect(LIMIT)).waiting == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await asyncio.sleep(SETTLED)
                released = time.monotonic()
            said, _ = await process.communicate()
            took.append(1000 * (float(said) - released))
    return took


def main(count: int) -> None:
    """Measure, and print."""
    from redis_server import open_server  # noqa: PLC0415  (the measured processes do not need it)

    with open_server() as server:
        took = asyncio.run(hand_over(server.url, count))
    p50, worst = statistics.median(took), max(took)
    print(f"{count} processes: a slot is handed over in {p50:.2f} ms at p50, {worst:.1f} at most")


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        asyncio.run(hold_once(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
