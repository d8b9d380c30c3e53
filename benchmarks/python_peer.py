"""A peer on Redis under the same load as the others, in an environment of its own.

Runs in the newest Python that was found, where only the peer is installed; so it imports nothing of
the benchmarks. `redis_peers.py` starts it.

    python_peer.py URL NAMESPACE PEER LOAD TASKS

LOAD is "keys": TASKS tasks, each on a key of its own; or "crowd": TASKS tasks for one slot of one
key. Each line on stdin is a number of operations; after them, a line is written to stdout.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

Enter = Callable[[str], AbstractAsyncContextManager[Any]]
"""Returns a context manager that takes the slot of a key, and releases it at the end."""


def py_redis_semaphore(url: str, namespace: str, connections: int) -> Enter:
    """Return the Semaphore of py-redis-semaphore; each object is for one use at a time."""
    module: Any = importlib.import_module("redis_semaphore")
    client = _client(url, connections)
    return lambda key: module.Semaphore(
        client, module.SemaphoreConfig(name=f"{namespace}:{key}", limit=1)
    )


def steindamm(url: str, namespace: str, connections: int) -> Enter:
    """Return the AsyncSemaphore of steindamm, which waits by BLPOP."""
    module: Any = importlib.import_module("steindamm")
    client = _client(url, connections)
    made: dict[str, Any] = {}

    def enter(key: str) -> AbstractAsyncContextManager[Any]:
        if key not in made:
            made[key] = module.AsyncSemaphore.create(
                name=f"{namespace}:{key}", capacity=1, max_sleep=600.0, connection=client
            )
        return made[key]

    return enter


def asyncio_advanced_semaphores(url: str, namespace: str, connections: int) -> Enter:
    """Return the RedisSemaphore of asyncio-advanced-semaphores; each object is for one use."""
    module: Any = importlib.import_module("asyncio_advanced_semaphores")
    config = module.RedisConfig(namespace=namespace, url=url, max_connections=3 * connections)
    return lambda key: module.RedisSemaphore(name=key, value=1, config=config).cm()


PEERS = {
    "py-redis-semaphore": py_redis_semaphore,
    "steindamm": steindamm,
    "asyncio-advanced-semaphores": asyncio_advanced_semaphores,
}


async def main(url: str, namespace: str, peer: str, load: str, tasks: int) -> None:
    """Do what stdin asks for."""
    enter = PEERS[peer](url, f"{namespace}:{peer}", 2 * tasks + 10)

    async def task(number: int, operations: int) -> None:
        for _ in range(operations):
            async with enter(str(number) if load == "keys" else "one"):
                if load == "crowd":
                    await asyncio.sleep(0)

    while line := await asyncio.to_thread(sys.stdin.readline):
        share = max(1, int(line) // tasks)
        await asyncio.gather(*(task(number, share) for number in range(tasks)))
        print("done", flush=True)


def _client(url: str, connections: int) -> Any:
    module: Any = importlib.import_module("redis.asyncio")
    return module.Redis.from_url(url, max_connections=connections)


if __name__ == "__main__":
    to_url, in_namespace, of_peer, with_load, of_tasks = sys.argv[1:]
    asyncio.run(main(to_url, in_namespace, of_peer, with_load, int(of_tasks)))
