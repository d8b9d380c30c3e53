"""Where the servers of a store are: one server, the master of a Sentinel service, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.sentinel import SentinelConnectionPool

from limiter_redis.connection.exchange import connected
from limiter_redis.connection.master import Master
from limiter_redis.connection.master_watch import MasterWatch
from limiter_redis.connection.nodes import CONNECT_TIMEOUT, ONLY_NODE, Node
from limiter_redis.connection.sentinel import (
    AsyncMasterConnection,
    AsyncMasterSSLConnection,
    AsyncSentinels,
    MasterConnection,
    MasterSSLConnection,
    Sentinels,
)
from limiter_redis.connection.settings import (
    async_client,
    quiet_async_settings,
    quiet_sync_settings,
    shown,
    sync_client,
)
from limiter_redis.connection.tls import for_event_loops


class ServerEndpoint:
    """One server."""

    def __init__(self, address: dict[str, Any]) -> None:
        self._address = address
        if "unix_socket_path" not in address:  # that takes a connection, or refuses it at once
            self._address = {"socket_connect_timeout": CONNECT_TIMEOUT, **address}
        self.where = shown(address)
        self.timeout: float = address["socket_timeout"]
        self.database = int(address.get("db", 0))

    def sync_client(self, node: Node = ONLY_NODE, *, timeout: float) -> redis.Redis:  # noqa: ARG002
        """Return a client of our own for threads."""
        return sync_client(self._address, socket_timeout=timeout)

    def async_client(self, node: Node = ONLY_NODE) -> redis.asyncio.Redis:  # noqa: ARG002
        """Return a client of our own for the running event loop."""
        return async_client(self._address)

    def new_watch(self, *_: object) -> None:
        """Return nothing: there is no other server."""

    def check_event_loops(self) -> None:
        """Refuse settings that redis-py has for threads alone."""
        for_event_loops(self._address)


class SentinelEndpoint:
    """The master of a service; Sentinels are asked which it is whenever a connection is made.

    Args:
        service: its name.
        sentinels: connection settings of the Sentinels.
        address: those of the master, without host and port.
    """

    def __init__(
        self, service: str, sentinels: list[dict[str, Any]], address: dict[str, Any]
    ) -> None:
        self._service = service
        self._sentinels = sentinels
        self._master = Master()
        self._address = _without(address, "host", "port")
        self._address.setdefault("socket_connect_timeout", CONNECT_TIMEOUT)
        self.timeout: float = address["socket_timeout"]
        self.database = int(address.get("db", 0))
        scheme = "rediss" if address.get("ssl") else "redis"
        hosts = ",".join(f"{each['host']}:{each['port']}" for each in sentinels)
        self.where = f"{scheme}+sentinel://{hosts}/{service}/{address.get('db', 0)}"

    def sync_client(self, node: Node = ONLY_NODE, *, timeout: float) -> redis.Redis:  # noqa: ARG002
        """Return a client of our own for threads."""
        sentinels: Any = Sentinels(self._sentinels, min(timeout, CONNECT_TIMEOUT), self._master)
        settings = quiet_sync_settings(self._address, timeout)
        kind = MasterSSLConnection if settings.pop("ssl", False) else MasterConnection
        pools: Any = SentinelConnectionPool
        pool = pools(self._service, sentinels, connection_class=kind, **settings)
        return redis.Redis(connection_pool=pool)

    def async_client(self, node: Node = ONLY_NODE) -> redis.asyncio.Redis:  # noqa: ARG002
        """Return a client of our own for the running event loop."""
        sentinels: Any = AsyncSentinels(
            self._sentinels, min(self.timeout, CONNECT_TIMEOUT), self._master
        )
        settings = quiet_async_settings(self._address)
        kind = AsyncMasterSSLConnection if settings.pop("ssl", False) else AsyncMasterConnection
        pools: Any = AsyncSentinelPool
        pool = pools(self._service, sentinels, connection_class=kind, **settings)
        return redis.asyncio.Redis.from_pool(pool)

    def new_watch(
        self, shortest_lease: Callable[[], float], looked: Callable[[Exception | None], object], /
    ) -> MasterWatch:
        """Return what asks the Sentinels which server is the master, again and again."""
        return MasterWatch(self._service, self._sentinels, self._master, shortest_lease, looked)

    def check_event_loops(self) -> None:
        """Refuse settings that redis-py has for threads alone."""
        for each in (self._address, *self._sentinels):
            for_event_loops(each)


class ClusterEndpoint:
    """The nodes of a cluster.

    Args:
        seeds: nodes to begin with.
        address: connection settings, the same for all of them.
        remap: from the address that a node calls its own to the one where it can be reached.
    """

    def __init__(
        self,
        seeds: list[Node],
        address: dict[str, Any],
        remap: Callable[[tuple[str, int]], tuple[str, int]] | None = None,
    ) -> None:
        self.seeds = seeds
        self.remap = remap
        self._address = _without(address, "host", "port", "db")
        self._address.setdefault("socket_connect_timeout", CONNECT_TIMEOUT)
        self.timeout: float = address["socket_timeout"]
        self.database = 0
        scheme = "rediss" if address.get("ssl") else "redis"
        self.where = f"{scheme}+cluster://{','.join(f'{node.host}:{node.port}' for node in seeds)}"

    def sync_client(self, node: Node = ONLY_NODE, *, timeout: float) -> redis.Redis:
        """Return a client of our own for threads, of one node."""
        connecting = min(timeout, self._address["socket_connect_timeout"])
        address = {**self._address, "socket_connect_timeout": connecting, **node._asdict()}
        return sync_client(address, socket_timeout=timeout)

    def async_client(self, node: Node = ONLY_NODE) -> redis.asyncio.Redis:
        """Return a client of our own for the running event loop, of one node."""
        return async_client({**self._address, **node._asdict()})

    def new_watch(self, *_: object) -> None:
        """Return nothing: nodes redirect."""

    def check_event_loops(self) -> None:
        """Refuse settings that redis-py has for threads alone."""
        for_event_loops(self._address)

    def ask_slots(self, node: Node, seconds: float) -> Any:
        """Return what a node answers to CLUSTER SLOTS; no step takes more than so many seconds."""
        client = self.sync_client(node, timeout=min(self.timeout, CONNECT_TIMEOUT, seconds))
        connection: Any = client.connection_pool.make_connection()
        try:
            connected(connection)
            connection.send_command("CLUSTER", "SLOTS")
            return connection.read_response(disable_decoding=True)
        finally:
            connection.disconnect()


def _without(address: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in address.items() if name not in names}
