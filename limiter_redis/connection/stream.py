"""One connection of an event loop: commands go out as bytes, replies come back one by one.

redis-py opens the connection, with all that TLS, passwords and databases take; from then on bytes
pass here without it, since its way costs several times what the script does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
)

from limiter_redis.connection.first_commands import ended_after, first_commands
from limiter_redis.connection.master import ToMaster, check_master
from limiter_redis.connection.nodes import opening_step
from limiter_redis.protocol.errors import Unreadable, is_driver_error
from limiter_redis.protocol.resp import ReplyParser

Reply = Any
"""What the server said: bytes, a number, a list, None, or a `RedisError`."""


class Stream(asyncio.Protocol):
    """An open connection.

    Args:
        receive: is called with each reply, in the order of the commands.
        ended: is called once when the connection is no more, unless `close` ended it.
    """

    def __init__(
        self, receive: Callable[[Reply], None], ended: Callable[[Stream, Exception], None]
    ) -> None:
        self._receive = receive
        self._ended: Callable[[Stream, Exception], None] | None = ended
        self._parser = ReplyParser()
        self._writer: Any = None
        self._to_master: ToMaster | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether another master was promoted since it was opened."""
        return self._to_master is not None and self._to_master.is_outdated

    async def open(self, client: redis.asyncio.Redis) -> None:
        """Connect to the server of a client, as the client's user.

        Raises:
            RedisError, OSError: it cannot be reached, or does not want us.
        """
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        connection.socket_timeout = opening_step(pool)  # only while it is opened
        try:
            with first_commands(connection):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._writer = connection._writer  # noqa: SLF001
        # It would close what it opened when it is collected: so its references are removed.
        connection._writer = connection._reader = None  # noqa: SLF001
        if isinstance(connection, ToMaster):
            self._to_master = connection
        self._writer.transport.set_protocol(self)

    def write(self, command: bytes) -> None:
        """Send a command."""
        self._writer.transport.write(command)

    def close(self) -> None:
        """End it, and do not call `ended`."""
        self._ended = None
        if self._writer is not None:
            self._writer.transport.abort()

    def abandon(self) -> None:
        """End it where its loop is closed, and can end nothing any more."""
        self._ended = None
        if self._writer is not None:
            _abandon(self._writer.transport)

    def fail(self, error: Exception) -> None:
        """End it for a reason."""
        ended = self._ended
        try:
            self.close()
        finally:  # also if an exception of others is raised in here
            if ended is not None:
                ended(self, error)

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        if self._to_master is not None:
            try:
                check_master(self._to_master)
            except ConnectionError as outdated:
                self.fail(outdated)
                return
        replies, trouble = self._parser.feed(data)
        for reply in replies:
            if self._ended is None:
                return
            self._receive(reply)
        if trouble is not None and self._ended is not None:
            # The one whose turn it is has its answer; those behind it are asked for again.
            error = Unreadable(str(trouble))
            self._receive(error)
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report it, if it was not ended here."""
        if exc is None or is_driver_error(exc):
            self.fail(exc or ended_after(""))
        else:  # of others, which was raised while something was read: it is the loop's to report
            self.fail(ConnectionError("Connection closed: what came was not read to its end"))


def abandon_pool(client: Any) -> None:
    """End the connections of a client whose loop is closed."""
    pool: Any = client.connection_pool
    for connection in (*pool._available_connections, *pool._in_use_connections):  # noqa: SLF001
        writer = connection._writer  # noqa: SLF001
        connection._writer = connection._reader = None  # noqa: SLF001
        if writer is not None:
            _abandon(writer.transport)


def _abandon(transport: Any) -> None:
    """End a transport whose loop is closed.

    It would hang up in the loop's next turn. So what it would do then is done now, as far as
    asyncio's own loops go; others (uvloop) have closed theirs with the loop.
    """
    with suppress(RuntimeError):
        transport.abort()
    protocol = getattr(transport, "_ssl_protocol", None)
    inner = transport if protocol is None else protocol._transport  # noqa: SLF001
    end = getattr(inner, "_call_connection_lost", None)
    if end is not None:
        with suppress(RuntimeError):  # the protocol has something to say to the loop, too
            end(None)
