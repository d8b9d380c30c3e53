"""The master of a service: Sentinels are asked before a connection is made, and when it is open.

These stand in for redis-py's own `Sentinel` below its connection pools. They keep no connections:
the question comes seldom, and in an event loop nothing would close them.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    RedisError,
)
from redis.sentinel import MasterNotFoundError

from limiter_redis.connection.master import Address, Master, ToMaster
from limiter_redis.connection.settings import quiet_async_settings, quiet_sync_settings

_QUESTION = ("SENTINEL", "get-master-addr-by-name")


class Sentinels:
    """The Sentinels, for threads.

    Args:
        addresses: connection settings, one for each.
        timeout: seconds that one has to answer.
        master: notes which master they name.
    """

    def __init__(self, addresses: list[dict[str, Any]], timeout: float, master: Master) -> None:
        self._addresses = list(addresses)
        self._timeout = timeout
        self.master = master

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return where the master listens.

        Raises:
            MasterNotFoundError: no Sentinel answers, or none knows the service.
        """
        troubles: list[str] = []
        for address in list(self._addresses):
            client: Any = redis.Redis(**quiet_sync_settings(address, self._timeout))
            try:
                found = client.execute_command(*_QUESTION, service_name)
            except (RedisError, OSError) as error:
                troubles.append(_trouble(address, str(error)))
                continue
            finally:
                client.connection_pool.disconnect()
            if found:
                _to_front(self._addresses, address)
                self.master.address = _endpoint(found)
                return self.master.address
            troubles.append(_trouble(address, "does not know it"))
        raise _not_found(service_name, troubles)


class AsyncSentinels:
    """The Sentinels, for an event loop; see `Sentinels`."""

    def __init__(self, addresses: list[dict[str, Any]], timeout: float, master: Master) -> None:
        self._addresses = list(addresses)
        self._timeout = timeout
        self.master = master

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return where the master listens.

        Raises:
            MasterNotFoundError: no Sentinel answers, or none knows the service.
        """
        troubles: list[str] = []
        for address in list(self._addresses):
            settings: Any = quiet_async_settings(address)
            settings["socket_timeout"] = self._timeout
            client: Any = redis.asyncio.Redis(**settings)
            try:
                found = await client.execute_command(*_QUESTION, service_name)
            except (RedisError, OSError) as error:
                troubles.append(_trouble(address, str(error)))
                continue
            finally:
                await client.connection_pool.disconnect()
            if found:
                _to_front(self._addresses, address)
                self.master.address = _endpoint(found)
                return self.master.address
            troubles.append(_trouble(address, "does not know it"))
        raise _not_found(service_name, troubles)


class _CheckedConnection(ToMaster):
    """A connection, for threads, to a server that is the master when it is open.

    While it was being made another one may have been promoted, and the server be back: without its
    data.
    """

    def connect_to(self, address: Address) -> None:
        """Connect, and ask the Sentinels again.

        Raises:
            RedisError, OSError: the server cannot be reached, or is not the master any more.
        """
        connection: Any = self
        super().connect_to(address)  # type: ignore[misc]
        try:
            _check(address, self.connection_pool.get_master_address())
        except BaseException:
            connection.disconnect()
            raise


class _CheckedAsyncConnection(ToMaster):
    """The same, for an event loop."""

    async def connect_to(self, address: Address) -> None:
        """Connect, and ask the Sentinels again; see `_CheckedConnection`."""
        connection: Any = self
        await super().connect_to(address)  # type: ignore[misc]
        try:
            _check(address, await self.connection_pool.get_master_address())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


class MasterConnection(_CheckedConnection, redis.sentinel.SentinelManagedConnection):
    """For threads."""


class MasterSSLConnection(_CheckedConnection, redis.sentinel.SentinelManagedSSLConnection):
    """For threads, with TLS."""


class AsyncMasterConnection(
    _CheckedAsyncConnection, redis.asyncio.sentinel.SentinelManagedConnection
):
    """For an event loop."""


class AsyncMasterSSLConnection(
    _CheckedAsyncConnection, redis.asyncio.sentinel.SentinelManagedSSLConnection
):
    """For an event loop, with TLS."""


def _check(address: Address, master: Address) -> None:
    if master != address:
        raise ConnectionError(
            "{}:{} is the master no more: {}:{} was promoted".format(*address, *master)
        )


def _to_front(addresses: list[dict[str, Any]], address: dict[str, Any]) -> None:
    """Have the one that answered asked first the next time."""
    addresses.remove(address)
    addresses.insert(0, address)


def _endpoint(found: Any) -> tuple[str, int]:
    host, port = found
    return host.decode() if isinstance(host, bytes) else host, int(port)


def _trouble(address: dict[str, Any], said: str) -> str:
    return f"{address.get('host')}:{address.get('port')}: {said}"


def _not_found(service: str, troubles: list[str]) -> Exception:
    said = "; ".join(troubles)
    return MasterNotFoundError(f"no Sentinel names the master of {service!r} ({said})")
