"""From a URL, or a client that the user has, to connections of our own."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

import limiter_core
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_redis.connection.tls import for_event_loops, for_threads, tls_options

SCHEMES = ("redis", "rediss", "unix")

PLAIN_CONNECTIONS = (
    redis.Connection,
    redis.SSLConnection,
    redis.UnixDomainSocketConnection,
    redis.asyncio.Connection,
    redis.asyncio.SSLConnection,
    redis.asyncio.UnixDomainSocketConnection,
)
"""The classes of connections whose settings say all about where they lead."""

# What says how to reach the server, and the user's name; the other settings of a client are about
# its replies, pools and retries.
_ADDRESS = (
    "client_name",
    "credential_provider",
    "db",
    "host",
    "password",
    "path",
    "port",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "username",
)

SOCKET_TIMEOUT = 5.0
"""Seconds that a reply may take, where the user's URL or client does not say."""


def _driver_settings() -> dict[str, Any]:
    name, version = "concurrency-limits", limiter_core.__version__
    if importlib.util.find_spec("redis.driver_info") is None:  # redis-py has it from 7.2 on
        return {"lib_name": f"redis-py({name}_v{version})", "lib_version": redis.__version__}
    from redis.driver_info import DriverInfo  # noqa: PLC0415  (not in each redis-py)

    return {"driver_info": DriverInfo().add_upstream_driver(name, version)}


# Made once: redis-py looks in the metadata of its distribution for each client, which takes 2 ms.
_DRIVER = _driver_settings()
"""Says in `CLIENT LIST` which connections are our own."""

_DIGITS = 9

_PROTOCOL = 2
"""Not 3: HELLO, which asks for it, takes a round trip, and some proxies do not have it; and under 3
redis-py keeps some replies to itself."""


class Credentials(redis.CredentialProvider):
    """A user's credentials, for connections of our own: asked for when one is made.

    A streaming provider announces new ones, but only to the client that registered last
    (redis-entraid; redis-py's clients all register): that is to be the user's. Servers end
    the connections whose credentials have run out, and then ours are made anew.
    """

    def __init__(self, provider: redis.CredentialProvider) -> None:
        self._provider = provider

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return them, also of a provider that was written for asyncio alone."""
        try:
            return self._provider.get_credentials()
        except NotImplementedError:
            asked = self._provider.get_credentials_async()
            try:
                return asyncio.run(asked)
            finally:
                asked.close()  # in an event loop it was not even begun

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return them."""
        own = getattr(type(self._provider), "get_credentials_async", None)
        if own is None or own is _INHERITED:  # which warns, each time
            return self._provider.get_credentials()
        return await self._provider.get_credentials_async()


_INHERITED = getattr(redis.CredentialProvider, "get_credentials_async", None)


def address_of_url(url: str) -> dict[str, Any]:
    """Return the connection settings that a URL stands for.

    Raises:
        ConfigurationError: redis-py cannot read it. (The message keeps its password to itself.)
    """
    try:
        pools: Any = redis.ConnectionPool
        pool = pools.from_url(url)
    except (ValueError, RedisError):
        raise not_a_url(url) from None
    return address_of_pool(pool)


def not_a_url(url: str) -> ConfigurationError:
    """Return the error for what cannot be read.

    It has neither the URL nor what redis-py says of it: a part of the password may be in it.
    """
    scheme = url.partition("://")[0]
    expected = f"{scheme}://user:password@host:6379/0"
    return ConfigurationError(
        f"not a Redis URL; expected something like "
        f"{expected if scheme in SCHEMES else 'redis://host:6379/0'} (in a password, a "
        '"/", "#", "?", "@" or "%" has to be percent-encoded)'
    )


def address_of_pool(pool: Any) -> dict[str, Any]:
    """Return the connection settings of a pool, sync or async."""
    kind = pool.connection_class.__name__
    address = address_of_connections(pool.connection_kwargs, tls="SSL" in kind)
    if "Unix" in kind:
        address["unix_socket_path"] = address.pop("path")
    return address


def address_of_connections(given: dict[str, Any], *, tls: bool) -> dict[str, Any]:
    """Return the connection settings of what redis-py makes connections with.

    Raises:
        ConfigurationError: TLS cannot be had with them, or a number is none.
    """
    address = {name: given[name] for name in _ADDRESS if given.get(name) is not None}
    for name in ("db", "port"):  # redis-py looks at them when it connects
        if name in address:
            address[name] = _number(name, address[name])
    if "credential_provider" in address:
        address["credential_provider"] = Credentials(address["credential_provider"])
    if tls:
        address["ssl"] = True
        address |= tls_options(given)
        for_threads(address)  # leases are renewed by one, also for event loops
    timeout = given.get("socket_timeout")
    address["socket_timeout"] = timeout if isinstance(timeout, int | float) else SOCKET_TIMEOUT
    return address


def is_number(text: str) -> bool:
    """Whether a text is that of a database or a port, and no longer than any of these."""
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS


def _number(name: str, given: object) -> int:
    text = str(given)
    if not is_number(text):
        raise ConfigurationError(f"the {name} of a client is a whole number, got {brief(given)}")
    return int(text)


def sync_client(address: dict[str, Any], *, socket_timeout: float) -> redis.Redis:
    """Return a client of our own for threads. It does not retry: its callers know until when."""
    return redis.Redis(**quiet_sync_settings(address, socket_timeout))


def quiet_sync_settings(address: dict[str, Any], socket_timeout: float) -> dict[str, Any]:
    """Return the settings of connections for threads that do not retry."""
    return {
        **_DRIVER,
        **for_threads(address),
        "protocol": _PROTOCOL,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": socket_timeout,
    }


def async_client(address: dict[str, Any]) -> redis.asyncio.Redis:
    """Return a client of our own for the running event loop. It does not retry, either.

    Nor does it time its replies, which costs redis-py a task for each: its users do.
    """
    return redis.asyncio.Redis(**quiet_async_settings(address))


def quiet_async_settings(address: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of connections for an event loop that neither retry nor time replies.

    Raises:
        ConfigurationError: a TLS option is for threads alone.
    """
    return {
        **_DRIVER,
        **for_event_loops(address),
        "protocol": _PROTOCOL,
        "retry": AsyncRetry(NoBackoff(), 0),
        "socket_timeout": None,
    }


def shown(address: dict[str, Any]) -> str:
    """Return where a store lives, without secrets."""
    if "unix_socket_path" in address:
        return f"unix://{address['unix_socket_path']}?db={address.get('db', 0)}"
    scheme = "rediss" if address.get("ssl") else "redis"
    host, port = address.get("host", "localhost"), address.get("port", 6379)
    return f"{scheme}://{host}:{port}/{address.get('db', 0)}"
