"""Where a server listens, and what an endpoint of a store offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import redis
import redis.asyncio

CONNECT_TIMEOUT = 1.8
"""Seconds that a server has to take a connection, if a user's URL or client does not say; and then,
at the least, for each step until it is open: for TLS, and for each of the first replies.

Far less than a later reply may take: so a wrong host that drops what is sent to it, and a wrong
port where nothing answers, are in the log within two seconds.
"""


def opening_step(pool: Any) -> float:
    """Return the seconds that each step has until a connection of a pool of redis-py is open."""
    return max(pool.connection_kwargs.get("socket_connect_timeout") or 0.0, CONNECT_TIMEOUT)


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Watch(Protocol):
    """What looks in the background whether a server is still the one to be asked."""

    def ensure_running(self) -> None:
        """Start it, if it does not run.

        Raises:
            RuntimeError: no thread can begin.
        """
        ...

    def stop(self) -> None:
        """Have it end."""
        ...

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        ...


ONLY_NODE = Node("", 0)
"""The one server, where there is only one."""


class Endpoint(Protocol):
    """Where the servers of a store are, and how connections of our own to them are made.

    Attributes:
        where: the same for people, without secrets.
        timeout: seconds that a reply may take.
        database: the number of the server's database.
    """

    where: str
    timeout: float
    database: int

    def sync_client(self, node: Node = ONLY_NODE, *, timeout: float) -> redis.Redis:
        """Return a client of our own for threads."""
        ...

    def async_client(self, node: Node = ONLY_NODE) -> redis.asyncio.Redis:
        """Return a client of our own for the running event loop."""
        ...

    def check_event_loops(self) -> None:
        """Refuse settings that redis-py has for threads alone.

        Raises:
            ConfigurationError: there is one, and certificates would not be checked as it says.
        """
        ...

    def new_watch(
        self, shortest_lease: Callable[[], float], looked: Callable[[Exception | None], object], /
    ) -> Watch | None:
        """Return what watches which server is to be asked; None where nobody can be asked that.

        Args:
            shortest_lease: returns the seconds of the shortest lease that depends on it.
            looked: is called in its thread after each look, with the reason if it failed.
        """
        ...
