"""Calls of the script by threads: one round trip each. Also the keeper's way to the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MaxConnectionsError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
    TryAgainError,
)

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.system_clock import system_clock as time
from limiter_redis import _protocol as protocol
from limiter_redis._driver_errors import is_driver_error
from limiter_redis._names import Names
from limiter_redis._script import Script
from limiter_redis._slots import HERE, Node

R = TypeVar("R")

BATCH = 128
"""Operations that travel in one call of the script at the most (S16)."""

POOL_PATIENCE = 5.0
"""Seconds to wait for a connection of a user's pool, before the store counts as away."""

POOL_PAUSE = 0.01

UNAVAILABLE = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    TryAgainError,
    OSError,
)

_PASSING = re.compile(
    r"(?:^|: -?)(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|READONLY|TRYAGAIN) "
)
"""How the errors of a server begin, also within a script, that is not itself for a while."""

FOR = ("EVALSHA",) if tuple(map(int, redis.__version__.split(".")[:2])) < (5, 3) else ()
"""What redis-py before 5.3 wants to know of a connection: for which command it is."""


def store_error(error: Exception, where: str) -> StoreError:
    """Return our error for one of the driver's, which becomes its cause."""
    away = (isinstance(error, UNAVAILABLE) or _PASSING.search(str(error)) is not None) and (
        not isinstance(error, AuthenticationError | AuthorizationError)
    )
    kind = StoreUnavailable if away else StoreError
    said = f"the store at {where} {'cannot be reached' if away else 'answered'}: {error}"
    ours = kind(said)
    ours.__cause__ = error
    return ours


class Way(Protocol):
    """A way for threads, to one server or to many."""

    reply_lost: Callable[[], object]

    def call(self, operations: Sequence[protocol.Operation]) -> list[str]:
        """Carry out operations and return the replies, then the news; see `Wire.call`."""
        ...

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        ...

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Wire:
    """Calls of one server, from any thread."""

    def __init__(
        self, client: redis.Redis, names: Names, process: str, where: str, script: Script
    ) -> None:
        self._client = client
        self._pool: Any = client.connection_pool
        self._where = where
        self.is_borrowed = False
        """Whether the client is a user's, who will close it."""
        self.patience: float | None = None
        """Seconds that a reply may take, where the client's own settings do not bound it."""
        self.reply_lost: Callable[[], object] = bool
        """Is called when a reply may have been lost, and with it news."""
        self._encode = protocol.Encoder(script, names, process)

    def call(self, operations: Sequence[protocol.Operation]) -> list[str]:
        """Carry out operations (at most `BATCH`) and return the replies, then the news.

        Raises:
            StoreUnavailable: the server cannot be reached.
            StoreError: it answered with an error.
        """

        def exchange(connection: Any) -> list[str]:
            try:
                reply = self._exchange(connection, self._encode(operations))
            except NoScriptError:
                reply = self._exchange(connection, self._encode(operations, by_text=True))
            text: str = reply.decode()
            return text.split("\n")

        return self._with_connection(exchange)

    def nodes(self) -> Sequence[Node]:
        """Return the one server."""
        return [HERE]

    def command(self, *command: Any, node: Node | None = None) -> Any:  # noqa: ARG002
        """Carry out one plain command."""
        return self._with_connection(
            lambda connection: self._exchange(connection, connection.pack_command(*command))
        )

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        if not self.is_borrowed:
            self._pool.disconnect()

    def _with_connection(self, exchange: Callable[[Any], R]) -> R:
        try:
            try:
                return self._once(exchange)
            except (ConnectionError, OSError):
                # A connection that lay idle may be dead. All operations may be repeated (S1).
                self.reply_lost()
                return self._once(exchange)
        except BaseException as error:
            self.reply_lost()
            if isinstance(error, Exception) and is_driver_error(error):
                raise store_error(error, self._where) from error
            raise

    def _once(self, exchange: Callable[[Any], R]) -> R:
        connection: Any = None
        try:
            connection = self._get_connection()
            return exchange(connection)
        except ReadOnlyError:
            if connection is not None:
                connection.disconnect()  # it may be another server that is written to by now
            raise
        except ResponseError:
            raise
        except BaseException:
            if connection is not None:
                connection.disconnect()  # whatever it would still say is not the next one's answer
            raise
        finally:
            if connection is not None:
                self._pool.release(connection)

    def _exchange(self, connection: Any, command: Any) -> Any:
        connection.send_packed_command([command] if isinstance(command, bytes) else command)
        if self.patience is not None and not connection.can_read(self.patience):
            raise TimeoutError("Timeout reading from socket")
        return connection.read_response(disable_decoding=True)

    def _get_connection(self) -> Any:
        deadline = time.monotonic() + POOL_PATIENCE
        while True:
            try:
                return self._pool.get_connection(*FOR)
            except ConnectionError as error:
                if not _is_full(error) or time.monotonic() > deadline:
                    raise
                time.sleep(POOL_PAUSE)


def _is_full(error: ConnectionError) -> bool:
    """Whether it is the user's pool that has no connection now (redis-py 5 has no class for it)."""
    return isinstance(error, MaxConnectionsError) or "Too many connections" in str(error)
