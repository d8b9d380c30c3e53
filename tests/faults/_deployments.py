"""What the store may run on, and how a test mistreats it: one interface for all of them.

A scenario is written against `Deployment`, and takes what it runs on from the fixture `deploy`: one
server, and with the mark `on_every_deployment`, in a long run, those of _replicated.py and of
_sentinel.py as well.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from tests.redis._servers import Process, Server, server_program


class Deployment(Protocol):
    """Servers that work together, at one URL.

    Attributes:
        url: what a store is given.
    """

    url: str

    def primaries(self) -> list[Process]:
        """Return the servers that take writes now."""
        ...

    def close(self) -> None:
        """Kill all, and remove what they left."""
        ...


class Standalone:
    """One server.

    Args:
        settings: its settings; `KEEPING` makes it write down everything at once.
    """

    def __init__(self, *settings: str) -> None:
        self._server = Process(server_program(), *settings)
        self.url = self._server.url

    def primaries(self) -> list[Process]:
        """Return the one."""
        return [self._server]

    def close(self) -> None:
        """Kill it."""
        self._server.close()


KEEPING = ("--appendonly", "yes", "--appendfsync", "always")

# -- what can be done to any of them ---------------------------------------------------------------


def flush_all(deployment: Deployment) -> tuple[float, float]:
    """Delete all data; returns the moments before and after."""
    before = time.monotonic()
    for server in deployment.primaries():
        server.admin.flushall()
    return before, time.monotonic()


def restart(deployment: Deployment, *, away: float = 0.0) -> tuple[float, float]:
    """Kill the servers and start them anew; returns the moments between which they were away.

    Args:
        deployment: whose servers.
        away: how many seconds they stay away.
    """
    before = time.monotonic()
    servers = deployment.primaries()
    for server in servers:
        server.kill()
    time.sleep(away)
    for server in servers:
        server.start()
    return before, time.monotonic()


def kill_clients(deployment: Deployment, kind: str) -> int:
    """Hang up on all clients of a kind ("normal", "pubsub") but us; returns how many there were.

    Sentinels are left alone: if one cannot reach a primary for as long as it takes a reconnection,
    it has it replaced, and that is another fault.
    """
    killed = 0
    for server in deployment.primaries():
        clients = server.admin.client_list(_type=kind)
        pipeline = server.admin.pipeline(transaction=False)
        for client in clients:
            if not client["name"].startswith("sentinel-"):
                pipeline.execute_command("CLIENT", "KILL", "ID", client["id"], "SKIPME", "yes")
        killed += sum(pipeline.execute())
    return killed


@contextmanager
def setting(deployment: Deployment, name: str, value: Any) -> Generator[None]:
    """Change a setting of all primaries for a while."""
    servers = deployment.primaries()
    before = [server.admin.config_get(name)[name] for server in servers]
    for server in servers:
        server.admin.config_set(name, value)
    try:
        yield
    finally:
        for server, old in zip(servers, before, strict=True):
            server.admin.config_set(name, old)


@contextmanager
def read_only(deployment: Deployment) -> Generator[None]:
    """Demote all primaries for a while: replicas, with their data, of a server that is not there.

    Clients are cut off as by a failover; when they connect again, their writes are refused.
    """
    servers = deployment.primaries()
    for server in servers:
        server.admin.replicaof("127.0.0.1", 1)
    kill_clients(deployment, "normal")
    try:
        yield
    finally:
        for server in servers:
            server.admin.replicaof("NO", "ONE")


def pause(deployment: Deployment, seconds: float) -> None:
    """Have all primaries answer no client for a while; returns at once."""
    for server in deployment.primaries():
        server.admin.client_pause(round(seconds * 1000))


@contextmanager
def frozen(deployment: Deployment) -> Generator[None]:
    """Freeze all primaries: connections stay open, and nothing is answered."""
    with ExitStack() as stack:
        for server in deployment.primaries():
            stack.enter_context(server.frozen())
        yield


def keys_for_ever(servers: list[Process] | list[Server]) -> list[str]:
    """Return what would stay for ever on any of these."""
    return [name for server in servers for name in server.keys_without_expiry()]


def each_but_layout(server: Process | Server) -> list[str]:
    """Return the keys of a server, without the number of the layout, which stays for days."""
    return [name for name in server.admin.scan_iter(count=1000) if not name.endswith(":layout")]
