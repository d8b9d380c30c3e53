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
from limiter_redis.connection.settings import (
    is_number,
    quiet_async_settings,
    quiet_sync_settings,
)
from limiter_redis.protocol.errors import UNREADABLE

QUESTION = ("SENTINEL", "get-master-addr-by-name")
"""What a Sentinel is asked, with the name of the service behind it."""


class Sentinels:
    """The Sentinels, for threads.

    Args:
        addresses: connection settings, one for each; the next to be asked is in front.
        timeout: seconds that one has to answer.
        master: notes which master they name.
    """

    def __init__(self, addresses: list[dict[str, Any]], timeout: float, master: Master) -> None:
        self._addresses = addresses
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
                found = master_of(client.execute_command(*QUESTION, service_name))
            except (RedisError, OSError, *UNREADABLE) as error:
                troubles.append(trouble_of(address, str(error)))
                continue
            finally:
                client.connection_pool.disconnect()
            to_front(self._addresses, address)
            self.master.address = found
            return found
        raise not_found(service_name, troubles)


class AsyncSentinels:
    """The Sentinels, for an event loop; see `Sentinels`."""

    def __init__(self, addresses: list[dict[str, Any]], timeout: float, master: Master) -> None:
        self._addresses = addresses
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
                found = master_of(await client.execute_command(*QUESTION, service_name))
            except (RedisError, OSError, *UNREADABLE) as error:
                troubles.append(trouble_of(address, str(error)))
                continue
            finally:
                await client.connection_pool.disconnect()
            to_front(self._addresses, address)
            self.master.address = found
            return found
        raise not_found(service_name, troubles)


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


def to_front(addresses: list[dict[str, Any]], address: dict[str, Any]) -> None:
    """Have the one that answered asked first the next time, by all connections of the store."""
    # Of a copy, and in one step: other threads do the same.
    others = [each for each in list(addresses) if each is not address]
    addresses[:] = [address, *others]


def master_of(found: Any) -> Address:
    """Return the address that a Sentinel answered with.

    Raises:
        RedisError: it does not know the service.
        ValueError, TypeError: it answers with something else.
    """
    if not found:
        raise RedisError("does not know it")
    host, port = found
    if not (isinstance(host, bytes) and isinstance(port, bytes) and is_number(port.decode())):
        raise ValueError("does not answer with an address")
    return host.decode(), int(port)


def trouble_of(address: dict[str, Any], said: str) -> str:
    """Return what went wrong with a Sentinel."""
    return f"{address.get('host')}:{address.get('port')}: {said}"


def not_found(service: str, troubles: list[str]) -> MasterNotFoundError:
    """Return the error for when none names a master."""
    said = "; ".join(troubles)
    return MasterNotFoundError(f"no Sentinel names the master of {service!r} ({said})")
