"""The peers on Redis: other packages that take and release a slot on a server.

A peer that is not installed is left out, and the reason is reported; `make bench` installs all
peers that it can.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from harness import AsyncContender
from redis_server import Server

Enter = Callable[[], AbstractAsyncContextManager[Any]]
"""Returns a context manager that takes a slot, and releases it at the end."""

_INSTALL_PATIENCE = 90.0


class MissingError(Exception):
    """A peer is missing; the message gives the reason."""


def self_limiters(server: Server, waiters: int) -> Enter:
    """Return the semaphore of self-limiters (in Rust; waits by BLPOP), for one slot.

    Raises:
        MissingError: it is not installed.
    """
    module = _module("self_limiters", "self-limiters")
    semaphore = module.Semaphore(
        f"{server.namespace}:self-limiters",
        1,
        max_sleep=600.0,
        redis_url=server.url,
        connection_pool_size=waiters + 5,  # each waiter needs a connection of its own
    )
    return lambda: semaphore


def dramatiq(server: Server) -> Callable[[], AbstractContextManager[Any]]:
    """Return the limiter of dramatiq, for one slot; it does not wait, and has no leases.

    Raises:
        MissingError: it is not installed.
    """
    backends = _module("dramatiq.rate_limits.backends", "dramatiq")
    limits = _module("dramatiq.rate_limits", "dramatiq")
    backend = backends.RedisBackend(url=server.url)
    limiter = limits.ConcurrentRateLimiter(backend, f"{server.namespace}:dramatiq", limit=1)
    return limiter.acquire


@asynccontextmanager
async def redis_semaphore(server: Server, kind: str, tasks: int) -> AsyncGenerator[AsyncContender]:
    """Run npm's redis-semaphore in a node process, which reads commands from its input.

    Args:
        server: the Redis server.
        kind: "Semaphore" or "Mutex".
        tasks: how many run at once, each on a key of its own.

    Raises:
        MissingError: node, npm or the packages are missing.
    """
    folder = await asyncio.to_thread(_node_folder)
    script = shutil.copy(Path(__file__).with_name("redis_semaphore.mjs"), folder)
    node = await asyncio.create_subprocess_exec(
        "node",
        script,
        *(server.url, server.namespace, kind, str(tasks)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert node.stdin is not None
    assert node.stdout is not None
    orders, replies = node.stdin, node.stdout

    async def order(operations: int) -> None:
        orders.write(f"{operations}\n".encode())
        reply = await replies.readline()
        if not reply:
            raise RuntimeError("node ended")

    try:
        yield order
    finally:
        orders.close()
        await node.wait()


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _node_folder() -> str:
    """Return a folder that contains the npm packages."""
    if _folders:
        return _folders[0].name
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise MissingError(f"npm's redis-semaphore: there is no {program}")
    folder = tempfile.TemporaryDirectory(prefix="limiter-bench-node-")
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "redis-semaphore", "ioredis"],
            cwd=folder.name,
            check=True,
            capture_output=True,
            timeout=_INSTALL_PATIENCE,
        )
    except (subprocess.SubprocessError, OSError) as error:
        folder.cleanup()
        raise MissingError(f"npm's redis-semaphore: npm cannot install it ({error})") from error
    _folders.append(folder)
    return folder.name


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"{package}: it is not installed (pip install {package})") from error
