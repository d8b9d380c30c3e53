"""Calls of the script by threads: one round trip each. Also the keeper's way to the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from limiter_core.errors import StoreError
from limiter_core.system_clock import system_clock as time
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import ConnectionPool, exchange
from limiter_redis.connection.nodes import ONLY_NODE, Node
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.errors import is_driver_error, store_error
from limiter_redis.protocol.keyspace import Keyspace
from limiter_redis.protocol.script import Script


class SyncTransport:
    """Calls of one server, from any thread.

    Args:
        connections: to the server.
        names: of the store.
        process: the name of this process.
        where: the store lives, without secrets.
        script: the script.
        timeout: seconds that a call may take, with all that it needs.
        refusals: whether the server takes our credentials.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        names: Keyspace,
        process: str,
        where: str,
        script: Script,
        *,
        timeout: float,
        refusals: Refusals,
    ) -> None:
        self._connections = connections
        self._refusals = refusals
        self._where = where
        self._timeout = timeout
        self.reply_lost: Callable[[], object] = bool
        """Is called when a reply may have been lost, and with it news."""
        self._encode = commands.Encoder(script, names, process)

    def call(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations (at most `BATCH`) and return the replies, then the news.

        Args:
            operations: one after the other.
            deadline: when the caller's patience ends, on the monotonic clock.

        Raises:
            StoreUnavailable: the server cannot be reached, or did not answer in time.
            StoreError: it answered with an error, or with what cannot be read.
        """
        try:
            return self._lines(operations, bounded(deadline, time.monotonic(), self._timeout))
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._where, operations) from error
            raise

    def call_each(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        give_up_at = bounded(deadline, time.monotonic(), self._timeout)
        count = len(operations)
        try:
            lines = self._lines(operations, give_up_at)
        except Exception as error:
            if not is_driver_error(error):
                raise
            ours = store_error(error, self._where, operations)
            if count == 1 or not isinstance(error, ResponseError):
                return [ours] * count, []
        else:
            return [*lines[:count]], lines[count:]
        # One that cannot be done must not take the others along.
        each = [self.call_each([operation], give_up_at) for operation in operations]
        return [lines[0] for lines, _ in each], [line for _, news in each for line in news]

    def nodes(self) -> Sequence[Node]:
        """Return the one server."""
        return [ONLY_NODE]

    def command(self, *command: Any, node: Node | None = None) -> Any:  # noqa: ARG002
        """Carry out one plain command."""
        give_up_at = bounded(None, time.monotonic(), self._timeout)
        try:
            return self._exchange(commands.packed_command(*command), give_up_at)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._where) from error
            raise

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        self._connections.close()

    def _lines(self, operations: Sequence[commands.Operation], give_up_at: float) -> list[str]:
        try:
            reply = self._exchange(self._encode(operations), give_up_at)
        except NoScriptError:
            reply = self._exchange(self._encode(operations, by_text=True), give_up_at)
        return replies.lines_of(reply, len(operations))

    def _exchange(self, command: bytes, give_up_at: float) -> Any:
        try:
            try:
                return self._once(command, give_up_at)
            except AuthenticationError:
                raise
            except (ConnectionError, OSError):
                # A connection that lay idle may be dead. All operations may be repeated (S1).
                self.reply_lost()
                self._connections.drop_idle()
                return self._once(command, give_up_at)
        except ResponseError:
            raise
        except BaseException:
            self.reply_lost()
            raise

    def _once(self, command: bytes, give_up_at: float) -> Any:
        connection: Any = None
        try:
            connection = self._connections.take(give_up_at)
            (reply,) = exchange(connection, command, 1, give_up_at)
            if isinstance(reply, ReadOnlyError | AuthenticationError):
                # It may be another server that is written to by now, or another password.
                self._refusals.note(reply)
                connection.disconnect()
            if isinstance(reply, RedisError):
                raise reply
            return reply
        finally:
            if connection is not None:
                self._connections.put_back(connection)
