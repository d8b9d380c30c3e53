"""The channels that a process hears at one node of a cluster (sharded pub/sub: Redis 7, Valkey)."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable
from typing import Any

import redis
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    RedisError,
    ResponseError,
)

from limiter_core.system_clock import system_clock as time
from limiter_redis._backoff import Refusals
from limiter_redis._exchange import FOR
from limiter_redis._resp import understood

_CHECK = 5.0
"""Seconds after which the connection is asked whether it lives."""

_PARTS = 3
_SUBSCRIBED, _UNSUBSCRIBED, _MESSAGE = b"ssubscribe", b"sunsubscribe", b"smessage"


class Ear:
    """One connection, which hears channels.

    Attributes:
        heard: messages, each with its channel in front.
        confirmed: channels that are heard from now on.
        refused: what the node said to channels that it does not have.
        taken: channels whose slot has left the node.
    """

    def __init__(self, client: redis.Redis, refusals: Refusals) -> None:
        self._refusals = refusals
        self._client = client  # one that is collected hangs up for all who use its pool
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        self._asked: deque[tuple[bytes, bytes]] = deque()
        self._asked_at = self._heard_at = 0.0
        self.heard: list[tuple[bytes, bytes]] = []
        self.confirmed: list[bytes] = []
        self.refused: list[tuple[bytes, RedisError]] = []
        self.taken: list[bytes] = []

    def open(self) -> None:
        """Connect.

        Raises:
            RedisError, OSError: the node cannot be reached.
        """
        self._refusals.check()
        with self._refusals.heeded():
            self._connection = self._pool.get_connection(*FOR)
            self._connection.connect()
        self._asked_at = self._heard_at = time.monotonic()

    def close(self) -> None:
        """End the connection: nothing is heard any more."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        self._pool.disconnect()
        self._asked.clear()

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Ask to hear channels."""
        self._ask(b"SSUBSCRIBE", _SUBSCRIBED, channels)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Ask not to hear channels any more."""
        self._ask(b"SUNSUBSCRIBE", _UNSUBSCRIBED, channels)

    def _ask(self, verb: bytes, answer: bytes, channels: Iterable[bytes]) -> None:
        for channel in channels:
            self._connection.send_command(verb, channel)
            self._asked.append((answer, channel))

    def listen(self, seconds: float, woken: Any) -> None:
        """Hear what comes, or wait until it does.

        Args:
            seconds: to wait at the most.
            woken: a socket that ends the waiting, too.

        Raises:
            RedisError, OSError: the connection has ended.
        """
        now = time.monotonic()
        if now - self._asked_at > _CHECK:
            # A connection may be dead without a word: so it is asked for one.
            if self._heard_at < self._asked_at:
                raise ConnectionError("no answer on the connection for messages")
            self._connection.send_command("PING")
            self._asked_at = now
        if not self._hear_all():
            select.select([self._connection._sock, woken], [], [], seconds)  # noqa: SLF001
            self._hear_all()

    def _hear_all(self) -> bool:
        anything = False
        while self._connection.can_read(0):
            anything = True
            try:
                reply = self._connection.read_response(disable_decoding=True)
            except ResponseError as error:
                if not self._asked:
                    raise
                self.refused.append((self._asked.popleft()[1], understood(error)))
            else:
                self._take(reply)
        if anything:
            self._heard_at = time.monotonic()
        return anything

    def _take(self, reply: Any) -> None:
        if isinstance(reply, bytes) or len(reply) < _PARTS:  # an answer to PING
            return
        kind, channel, said = reply
        if kind == _MESSAGE:
            self.heard.append((channel, said))
        elif self._asked and self._asked[0] == (kind, channel):
            self._asked.popleft()
            if kind == _SUBSCRIBED:
                self.confirmed.append(channel)
        elif kind == _UNSUBSCRIBED:
            self.taken.append(channel)
