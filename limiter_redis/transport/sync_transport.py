"""Calls of the script by threads: one round trip each. Also the keeper's way to the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
    TryAgainError,
)

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import HERE, Node
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import Connections, exchange
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.errors import is_driver_error
from limiter_redis.protocol.keyspace import Names
from limiter_redis.protocol.script import Script

BATCH = 128
"""Operations that travel in one call of the script at the most (S16)."""

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


def store_error(
    error: Exception, where: str, operations: Sequence[protocol.Operation] = ()
) -> StoreError:
    """Return our error for one of the driver's, which becomes its cause.

    Args:
        error: the driver's.
        where: the store lives.
        operations: that were asked for; an answer is about what they are about.
    """
    away = (isinstance(error, UNAVAILABLE) or _PASSING.search(str(error)) is not None) and (
        not isinstance(error, AuthenticationError | AuthorizationError)
    )
    if away:
        ours: StoreError = StoreUnavailable(f"the store at {where} cannot be reached: {error}")
    elif "+cluster" not in where and _says_cluster(error):
        ours = StoreError(
            f"the server at {where} is a node of a cluster, and the keys lie on another: give the "
            "store the URL redis+cluster://host:port in place of redis://host:port, or a "
            "RedisCluster as its client"
        )
    else:
        about = ""
        if isinstance(error, ResponseError) and len(operations) == 1:
            about = f" (about {operations[0].subject})"
        ours = StoreError(f"the store at {where} answered: {error}{about}")
    ours.__cause__ = error
    return ours


def _says_cluster(error: Exception) -> bool:
    said = str(error)
    return isinstance(error, AskError) or "CROSSSLOT" in said or "non local key" in said


class Way(Protocol):
    """A way for threads, to one server or to many."""

    reply_lost: Callable[[], object]

    def call(
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations and return the replies, then the news; see `Wire.call`."""
        ...

    def call_each(
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
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
        connections: Connections,
        names: Names,
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
        self._encode = protocol.Encoder(script, names, process)

    def call(
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
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
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
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
        return [HERE]

    def command(self, *command: Any, node: Node | None = None) -> Any:  # noqa: ARG002
        """Carry out one plain command."""
        give_up_at = bounded(None, time.monotonic(), self._timeout)
        try:
            return self._exchange(protocol.packed_command(*command), give_up_at)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._where) from error
            raise

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        self._connections.close()

    def _lines(self, operations: Sequence[protocol.Operation], give_up_at: float) -> list[str]:
        try:
            reply = self._exchange(self._encode(operations), give_up_at)
        except NoScriptError:
            reply = self._exchange(self._encode(operations, by_text=True), give_up_at)
        return protocol.lines_of(reply, len(operations))

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
