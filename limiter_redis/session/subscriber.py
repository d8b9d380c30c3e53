"""A connection that receives messages: of plain channels, or of a cluster's sharded ones.

redis-py opens it; from then on bytes are read here as they come. Nothing in here waits for the
server longer than it is asked to, since the thread that listens also renews leases.
"""

from __future__ import annotations

import selectors
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

import redis
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    RedisError,
    ResponseError,
)

from limiter_core.system_clock import system_clock as time
from limiter_redis.connection.background import BackgroundCall
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.exchange import connected, new_connection
from limiter_redis.connection.first_commands import ended_after
from limiter_redis.connection.master import check_master
from limiter_redis.protocol import commands
from limiter_redis.protocol.errors import Unreadable
from limiter_redis.protocol.resp import ReplyParser

_CHECK = 5.0
"""Seconds after which the connection is checked by a PING."""

_SEND_TIMEOUT = 0.1
"""Seconds that a command may take to leave this process."""

_READ_SIZE = 65536
_PARTS = 3


class Subscriber:
    """One connection, which receives messages of channels.

    Args:
        client: opens it.
        refusals: whether the server takes our credentials.
        woken: a socket that ends the waiting for messages, too.
        sharded: whether the channels are those of a cluster's slots (Redis 7, Valkey).

    Attributes:
        received: messages, each with its channel in front.
        received_since: a moment, on the local clock, before which none of them had arrived; they
            may have waited long, if the process stood still.
        confirmed: channels whose messages are received from now on.
        refused: what the node said to channels that it does not have.
        taken: channels whose slot has left the node.
    """

    def __init__(
        self, client: redis.Redis, refusals: Refusals, woken: Any, *, sharded: bool
    ) -> None:
        self._refusals = refusals
        self._woken = woken
        self._selector: selectors.BaseSelector | None = None
        self._client = client  # one that is collected closes the connections of its pool
        kind = "s" if sharded else ""
        self._subscribed = f"{kind}subscribe".encode()
        self._unsubscribed = f"{kind}unsubscribe".encode()
        self._message = f"{kind}message".encode()
        self._opening: BackgroundCall | None = None
        self._open_by = 0.0
        self._connection: Any = None
        self._parser = ReplyParser(pushes=True)
        self._asked: deque[tuple[bytes, bytes]] = deque()
        self._asked_at = self._heard_at = self._empty_at = self.received_since = 0.0
        self.received: list[tuple[bytes, bytes]] = []
        self.confirmed: list[bytes] = []
        self.refused: list[tuple[bytes, RedisError]] = []
        self.taken: list[bytes] = []

    @property
    def is_opening(self) -> bool:
        """Whether a connection is on its way."""
        return self._opening is not None

    def open(self, patience: float, seconds: float) -> bool:
        """Connect, in the background; whether it is open.

        Args:
            patience: seconds that connecting may take, from the first call on.
            seconds: to wait for it now.

        Raises:
            RedisError, OSError: the server cannot be reached, or does not want us.
        """
        if self._connection is not None:
            return True
        if self._opening is None:
            self._refusals.check()
            self._open_by = time.monotonic() + patience
            connection = new_connection(self._client, self._open_by)
            self._opening = BackgroundCall(
                lambda: connected(connection), lambda _: connection.disconnect()
            )
            self._opening.begin()
        if not self._opening.is_done(seconds) and time.monotonic() < self._open_by:
            return False
        with self._refusals.watched():
            self._connection = self._opening.result(self._open_by)
        self._opening = None
        self._parser = ReplyParser(pushes=True)
        self._asked_at = self._heard_at = self._empty_at = time.monotonic()
        # No `select`: it knows no descriptor above 1023.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock(), selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        return True

    def close(self) -> None:
        """End the connection: no more messages are received."""
        if self._opening is not None:
            self._opening.give_up()
            self._opening = None
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        self._asked.clear()
        for each in (self.received, self.confirmed, self.refused, self.taken):
            each.clear()

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Ask for the messages of channels."""
        self._ask(self._subscribed, channels)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Ask for no more messages of channels."""
        self._ask(self._unsubscribed, channels)

    def _ask(self, verb: bytes, channels: Iterable[bytes]) -> None:
        for channel in channels:
            self._send(verb.decode().upper(), channel.decode())
            self._asked.append((verb, channel))

    def _send(self, *command: str) -> None:
        sock = self._sock()
        sock.settimeout(_SEND_TIMEOUT)
        sock.sendall(commands.packed_command(*command))

    def _sock(self) -> Any:
        sock = self._connection._sock  # noqa: SLF001
        if sock is None:
            raise ConnectionError("Connection closed.")
        return sock

    def listen(self, seconds: float) -> None:
        """Receive what comes, or wait until it does.

        Args:
            seconds: to wait at the most.

        Raises:
            RedisError, OSError: the connection has ended.
        """
        check_master(self._connection)
        now = time.monotonic()
        if now - self._asked_at > _CHECK:
            # A connection may be dead without an error: so it is tried.
            if self._heard_at < self._asked_at:
                raise ConnectionError("no answer on the connection for messages")
            self._send("PING")
            self._asked_at = now
        until = now + seconds
        if not self._receive(until) and self._selector and self._selector.select(seconds):
            self._receive(until)

    def _receive(self, until: float) -> bool:
        """Take what is there; whether anything was. What comes after some time is read later."""
        sock = self._sock()
        sock.settimeout(0)
        anything = False
        if not self.received:
            self.received_since = self._empty_at
        while not anything or time.monotonic() < until:
            now = time.monotonic()
            try:
                data = sock.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._empty_at = now
                break
            if not data:
                raise ended_after(self._asked[0][0].decode().upper() if self._asked else "")
            anything = True
            replies, trouble = self._parser.feed(data)
            for reply in replies:
                self._take(reply)
            if trouble is not None:
                raise Unreadable(str(trouble))
            if replies:  # a byte now and then is no sign of life
                self._heard_at = time.monotonic()
        return anything

    def _take(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            if not self._asked or not isinstance(reply, ResponseError):
                raise reply
            self.refused.append((self._asked.popleft()[1], reply))
            return
        if not isinstance(reply, list):  # an answer to PING
            return
        parts = cast(list[Any], reply)
        if len(parts) != _PARTS:  # the same in RESP2
            return
        kind, channel, said = parts
        if kind == self._message:
            if isinstance(channel, bytes) and isinstance(said, bytes):
                self.received.append((channel, said))
        elif self._asked and self._asked[0] == (kind, channel):
            self._asked.popleft()
            if kind == self._subscribed:
                self.confirmed.append(channel)
        elif kind == self._unsubscribed:
            self.taken.append(channel)
