"""Exchanges of threads with a server: commands out, replies back, all before a deadline.

redis-py opens a connection, with all that TLS, passwords and databases take. It bounds the time of
each step only, and a server that sends a byte now and then makes as many steps as it likes; so here
a connection is opened in a thread of its own, and its replies are read with the time that is left.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

import redis
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    MaxConnectionsError,
    RedisError,
)

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock
from limiter_redis.connection.background import within
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.deadlines import NoAnswer
from limiter_redis.connection.first_commands import ended_after, first_commands
from limiter_redis.connection.master import check_master
from limiter_redis.connection.nodes import opening_step
from limiter_redis.protocol.errors import Unreadable, is_driver_error
from limiter_redis.protocol.resp import ReplyParser

FOR = ("EVALSHA",) if tuple(map(int, redis.__version__.split(".")[:2])) < (5, 3) else ()
"""What redis-py before 5.3 wants to know of a connection: for which command it is."""

POOL_TIMEOUT = 5.0
"""Seconds to wait for a connection of a user's pool, before the store counts as away."""

POOL_PAUSE = 0.01

MOST_CONNECTIONS = 100
"""Connections of our own to one server, for threads: each call has one as long as it lasts."""

_READ_SIZE = 65536


class ConnectionPool(Protocol):
    """The connections to one server."""

    def take(self, deadline: float) -> Any:
        """Return one that is open, until it is put back.

        Raises:
            RedisError, OSError: the server cannot be reached before the deadline, or refuses us.
        """
        ...

    def put_back(self, connection: Any) -> None:
        """Take back one, open or not."""
        ...

    def drop_idle(self) -> None:
        """Close those that lie idle: they may be dead as well."""

    def close(self) -> None:
        """Close all; those that are in use once they are put back."""


def new_connection(client: redis.Redis, deadline: float) -> Any:
    """Return a connection as a client makes them, which is not open; no step may last longer."""
    pool: Any = client.connection_pool
    # Not by the pool: it counts those that it made, also when they are gone.
    connection = pool.connection_class(**pool.connection_kwargs)
    left = max(0.001, deadline - time.monotonic())
    bound = min(left, opening_step(pool))  # what is asked later has its own time
    for name in ("socket_connect_timeout", "socket_timeout"):
        given = getattr(connection, name, None)
        setattr(connection, name, bound if given is None else min(given, bound))
    return connection


def connected(connection: Any) -> Any:
    """Open a connection, and return it; one that fails on the way is closed, whatever the reason.

    redis-py closes it after an error of its own; a credential provider may raise what it likes.
    """
    try:
        with first_commands(connection):
            connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    return connection


def connect_within(connection: Any, deadline: float) -> None:
    """Open a connection before a deadline.

    Raises:
        RedisError, OSError: the server cannot be reached before the deadline, or refuses us.
    """
    try:
        within(lambda: connected(connection), lambda _: connection.disconnect(), deadline)
    except NoAnswer:
        # A server that sends a byte now and then would keep the thread that reads them.
        sock = _socket(connection)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        raise


class OwnPool:
    """Connections of our own, as the pool of a client makes them."""

    def __init__(self, client: redis.Redis, refusals: Refusals) -> None:
        self._client = client  # one that is collected closes the connections of its pool
        self._refusals = refusals
        self._idle: deque[Any] = deque()
        self._lock = new_lock()
        self._count = 0
        self._is_closed = False

    def take(self, deadline: float) -> Any:
        """Return an idle one, or open one; where there are too many, wait for one."""
        while True:
            with suppress(IndexError):
                return self._idle.pop()
            with self._lock:
                if self._count < MOST_CONNECTIONS:
                    self._count += 1
                    break
            if time.monotonic() >= deadline:
                raise NoAnswer("all connections are in use")
            time.sleep(POOL_PAUSE)
        try:
            return self._open(deadline)
        except BaseException:
            self._forget()
            raise

    def _open(self, deadline: float) -> Any:
        self._refusals.check()
        connection = new_connection(self._client, deadline)
        with self._refusals.watched():
            connect_within(connection, deadline)
        return connection

    def _forget(self) -> None:
        with self._lock:
            self._count -= 1

    def put_back(self, connection: Any) -> None:
        """Keep it for the next, if it is open."""
        if connection._sock is not None:  # noqa: SLF001
            self._idle.append(connection)
            if self._is_closed:
                self.drop_idle()
        else:
            self._forget()

    def drop_idle(self) -> None:
        """Close those that lie idle."""
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()
                self._forget()

    def close(self) -> None:
        """Close those that lie idle; and those in use, once they are put back."""
        self._is_closed = True
        self.drop_idle()


class BorrowedPool:
    """Those of a user's pool. The user closes them."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool

    def take(self, deadline: float) -> Any:
        """Return one of the pool, when it has one."""
        give_up_at = min(deadline, time.monotonic() + POOL_TIMEOUT)
        while True:
            try:
                if self._has_open():
                    return self._pool.get_connection(*FOR)
                return within(lambda: self._pool.get_connection(*FOR), self._pool.release, deadline)
            except ConnectionError as error:
                if not _is_full(error) or time.monotonic() > give_up_at:
                    raise
                time.sleep(POOL_PAUSE)

    def put_back(self, connection: Any) -> None:
        """Give it back, with the time limit that the user's settings say."""
        sock = _socket(connection)
        if sock is not None:
            sock.settimeout(connection.socket_timeout)
        self._pool.release(connection)

    def drop_idle(self) -> None:
        """Do nothing: the pool looks at each before it gives it away."""

    close = drop_idle

    def _has_open(self) -> bool:
        idle: Any = getattr(self._pool, "_available_connections", None)
        if idle is None:
            idle = getattr(getattr(self._pool, "pool", None), "queue", None)
        try:
            return idle[-1] is not None and _socket(idle[-1]) is not None
        except (TypeError, IndexError):
            return False


def exchange(connection: Any, commands: bytes, count: int, deadline: float) -> list[Any]:
    """Send commands and return so many replies; errors are among them, as `RedisError`.

    Where they end before, the last one is the reason, and the connection is closed: whatever comes
    over it is not the next one's reply.
    """
    replies: list[Any] = []
    try:
        sock = _socket(connection)
        if sock is None:
            raise ConnectionError("Connection closed.")
        check_master(connection)
        sock.settimeout(_left(deadline))
        sock.sendall(commands)
        parser = ReplyParser()
        while True:
            data = sock.recv(_READ_SIZE)
            if not data:
                raise ended_after(_name_of(commands))
            found, trouble = parser.feed(data)
            check_master(connection)  # what a master of before has granted is worth nothing
            replies += found
            if trouble is not None:
                raise Unreadable(str(trouble))
            if len(replies) >= count:
                break
            sock.settimeout(_left(deadline))
    except (RedisError, OSError) as error:
        connection.disconnect()
        if not is_driver_error(error):
            raise
        replies.append(_driver_error(error))
        return replies[:count]
    except BaseException:
        connection.disconnect()
        raise
    if len(replies) > count or parser.has_begun:
        connection.disconnect()  # what was not asked for is not the next one's
    return replies[:count]


def _name_of(commands: bytes) -> str:
    """Return the name of the first of some commands, as they are sent."""
    return commands[:100].split(b"\r\n")[2].decode()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise NoAnswer("Timeout reading from the server")
    return left


def _driver_error(error: RedisError | OSError) -> RedisError:
    """Return an error of a socket as redis-py would say it."""
    if isinstance(error, RedisError):
        return error
    if isinstance(error, socket.timeout):
        return NoAnswer("Timeout reading from the server")
    return ConnectionError(f"Error while reading from the server: {error}")


def _socket(connection: Any) -> Any:
    """Return the socket of a connection, also of one that answers from a cache."""
    return getattr(connection, "_conn", connection)._sock  # noqa: SLF001


def _is_full(error: ConnectionError) -> bool:
    """Whether it is the user's pool that has no connection now (redis-py 5 has no class for it)."""
    return isinstance(error, MaxConnectionsError) or "Too many connections" in str(error)
