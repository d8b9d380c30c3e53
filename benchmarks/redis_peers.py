"""The peers on Redis: other packages that take and release a slot on a server.

A peer that is not installed is left out, and the reason is reported; `make bench` installs all
peers that it can. Those of `PYTHON_PEERS` have an environment each, `.venv-bench-NAME` in the
checkout, of the newest Python that is found; they run in a process of their own, as npm's does.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from harness import AsyncContender
from redis_server import Server

Enter = Callable[[], AbstractAsyncContextManager[Any]]
"""Returns a context manager that takes a slot, and releases it at the end."""

PYTHON_PEERS = ("py-redis-semaphore", "steindamm", "asyncio-advanced-semaphores")

SLOW_PEERS = ("asyncio-advanced-semaphores",)
"""They are measured in one round of few operations: else they would take minutes."""

_INSTALL_PATIENCE = 90.0
_ROOT = Path(__file__).resolve().parent.parent


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
    words = (str(script), server.url, server.namespace, kind, str(tasks))
    async with _process("node", *words) as order:
        yield order


@asynccontextmanager
async def python_peer(
    server: Server, peer: str, load: str, tasks: int
) -> AsyncGenerator[AsyncContender]:
    """Run one of `PYTHON_PEERS` in a process of its own, which reads commands from its input.

    Args:
        server: the Redis server.
        peer: the package.
        load: "keys" or "crowd"; see python_peer.py.
        tasks: how many run at once.

    Raises:
        MissingError: it cannot be installed.
    """
    python = await asyncio.to_thread(_environment, peer)
    script = Path(__file__).with_name("python_peer.py")
    words = (str(script), server.url, server.namespace, peer, load, str(tasks))
    async with _process(str(python), *words) as order:
        yield order


@asynccontextmanager
async def _process(*command: str) -> AsyncGenerator[AsyncContender]:
    """Run a process that does as many operations as a line of its input says."""
    running = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdin is not None
    assert running.stdout is not None
    orders, replies = running.stdin, running.stdout

    async def order(operations: int) -> None:
        orders.write(f"{operations}\n".encode())
        reply = await replies.readline()
        if not reply:
            raise RuntimeError(f"{command[1]} ended")

    try:
        yield order
    finally:
        orders.close()
        await running.wait()


def newest_python() -> str:
    """Return the newest Python that is found: on the PATH, from pyenv, or this one."""
    names = [shutil.which(f"python3.{minor}") for minor in range(15, 10, -1)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*filter(None, names), *map(str, pyenv.glob("3.*/bin/python3")), sys.executable]
    return max(found, key=_version_of)


def _version_of(python: str) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:3])"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    # (pyenv's shims are there for versions that are not active.)
    return tuple(map(int, ran.stdout.split())) if ran.returncode == 0 else ()


def _environment(package: str) -> Path:
    """Return the Python of an environment that has a package alone, and hiredis."""
    folder = _ROOT / f".venv-bench-{package}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = folder / ".installed"
    if done.exists():
        return python
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    try:
        for command in (
            [newest_python(), "-m", "venv", "--clear", "--without-pip", str(folder)],
            [*pip, "--python", str(python), "install", package, "redis[hiredis]"],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_PATIENCE)
    except (subprocess.SubprocessError, OSError) as error:
        raise MissingError(f"{package}: it cannot be installed ({error})") from error
    done.touch()
    return python


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
