"""One connection of an event loop: commands go out as bytes, replies come back one by one.

redis-py opens the connection, with all that TLS, passwords and databases take; from then on bytes
pass here without it, since its way costs several times what the script does. Only what the
script and WAIT answer is understood: a text, a number, or an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

Reply = bytes | RedisError
"""The script's text, or what the server said instead."""

_ERRORS: dict[str, type[Any]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}
_TEXT, _ERROR, _NUMBER = b"$-:"


class Link(asyncio.Protocol):
    """An open connection.

    Args:
        hear: is called with each reply, in the order of the commands.
        ended: is called once when the connection is no more, unless `close` ended it.
    """

    def __init__(
        self, hear: Callable[[Reply], None], ended: Callable[[Link, Exception], None]
    ) -> None:
        self._hear = hear
        self._ended: Callable[[Link, Exception], None] | None = ended
        self._rest = b""
        self._writer: Any = None

    async def open(self, client: redis.asyncio.Redis) -> None:
        """Connect to the server of a client, as the client's user.

        Raises:
            RedisError, OSError: it cannot be reached, or does not want us.
        """
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._writer = connection._writer  # noqa: SLF001
        # It would close what it opened when it is collected: so it is told that it has nothing.
        connection._writer = connection._reader = None  # noqa: SLF001
        self._writer.transport.set_protocol(self)

    def write(self, command: bytes) -> None:
        """Send a command."""
        self._writer.transport.write(command)

    def close(self) -> None:
        """End it, without a word to anybody."""
        self._ended = None
        if self._writer is not None:
            self._writer.transport.abort()

    def fail(self, error: Exception) -> None:
        """End it for a reason."""
        ended = self._ended
        self.close()
        if ended is not None:
            ended(self, error)

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take replies apart; the last one may be half here."""
        if self._rest:
            data = self._rest + data
        start, size = 0, len(data)
        while start < size and self._ended is not None:
            end = data.find(b"\r\n", start)
            if end < 0:
                break
            if data[start] == _TEXT:
                begin = end + 2
                end = begin + int(data[start + 1 : begin - 2])
                if size < end + 2:
                    break
                self._hear(data[begin:end])
            elif data[start] == _ERROR:
                self._hear(_error(data[start + 1 : end].decode(errors="replace")))
            elif data[start] == _NUMBER:
                self._hear(data[start + 1 : end])
            else:
                self.fail(InvalidResponse("the script answered neither a text nor an error"))
                return
            start = end + 2
        self._rest = data[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell, if nobody here ended it."""
        self.fail(exc or ConnectionError("Connection closed by server."))


def understood(error: ResponseError) -> RedisError:
    """Return a server's error as one of its class; not all versions of redis-py know them all."""
    if type(error) is not ResponseError:
        return error
    found: RedisError = _error(str(error))
    return found


def _error(said: str) -> Any:
    kind, _, rest = said.partition(" ")
    known = _ERRORS.get(kind)
    if known is None:
        return ResponseError(said.removeprefix("ERR "))
    error: RedisError = known(rest)
    return error
