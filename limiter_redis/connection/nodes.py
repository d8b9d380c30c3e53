"""Where a server listens, and what an endpoint of a store offers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import redis
import redis.asyncio

CONNECT_TIMEOUT = 2.0
"""Seconds that a node of a cluster, or a Sentinel, has to take a connection: there are others."""


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


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
