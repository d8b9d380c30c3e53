"""What a hold costs on running servers: one server, a cluster, servers whose replicas confirm.

    python benchmarks/cluster.py redis://localhost:6379 redis+cluster://localhost:7000

With `?min_replicas=1` in the URLs it measures the cost of replicas that confirm each grant.

Prints for each URL: the holds per second of several processes with many tasks, each on a key of its
own; the time of a single hold; and how often each node of a cluster was called.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from typing import Any, cast

import redis

from limiter_core import ConcurrencyLimit, Limiter

LIMIT = ConcurrencyLimit("key", max_concurrent=1)


async def _load(url: str, process: int, seconds: float, tasks: int) -> int:
    done = 0
    async with Limiter(url) as limiter:
        ends_at = time.monotonic() + seconds

        async def caller(task: int) -> None:
            nonlocal done
            number = 0
            while time.monotonic() < ends_at:
                number += 1
                async with limiter.hold(LIMIT, {"key": f"{process}-{task}-{number}"}):
                    pass
                done += 1

        await asyncio.gather(*(caller(task) for task in range(tasks)))
    return done


def _process(url: str, process: int, seconds: float, tasks: int, results: Any) -> None:
    results.put(asyncio.run(_load(url, process, seconds, tasks)))


async def _alone(url: str, rounds: int) -> float:
    times: list[float] = []
    async with Limiter(url) as limiter:
        for number in range(rounds):
            begin = time.perf_counter()
            async with limiter.hold(LIMIT, {"key": str(number)}):
                pass
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def _calls(url: str) -> dict[str, int]:
    """Return the number of script calls, by node."""
    place = url.partition("://")[2].partition(",")[0].partition("/")[0].partition("?")[0]
    host, _, port = place.rpartition(":")
    if "+cluster" not in url:
        nodes = [(host, int(port))]
    else:
        client: Any = redis.RedisCluster(host=host, port=int(port))
        nodes = [(node.host, node.port) for node in client.get_primaries()]
        client.close()
    counts: dict[str, int] = {}
    for host, port in nodes:
        client = redis.Redis(host=host, port=port)
        stats: Any = client.info("commandstats")
        counts[f"{host}:{port}"] = sum(
            int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("fcall", "evalsha")
        )
        client.close()
    return counts


def main() -> None:
    """Measure the URLs one after another, in several rounds."""
    parser = argparse.ArgumentParser(description="Measure holds on servers that run.")
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for _ in range(given.rounds):
        for url in given.urls:
            results: Any = cast(Any, multiprocessing).Queue()
            before = _calls(url)
            processes = [
                multiprocessing.Process(
                    target=_process, args=(url, number, given.seconds, given.tasks, results)
                )
                for number in range(given.processes)
            ]
            for process in processes:
                process.start()
            done = sum(results.get() for _ in processes)
            for process in processes:
                process.join()
            after = _calls(url)
            calls = {node: after[node] - before[node] for node in after}
            alone = asyncio.run(_alone(url, 300))
            print(f"{done / given.seconds:8.0f} holds/s  {alone:6.0f} us alone  {url}  {calls}")


if __name__ == "__main__":
    main()
