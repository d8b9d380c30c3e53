"""Exchanges of threads with one node: calls go out together, and their replies come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
)

from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.redirects import Retry
from limiter_redis.cluster.replicas import Grants, MinReplicas, give_back, grants_of
from limiter_redis.cluster.slot_map import SlotMap
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import ConnectionPool, exchange
from limiter_redis.connection.nodes import ONLY_NODE, Node
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver
from limiter_redis.transport.invocation import ScriptCall


class ThreadCall(ScriptCall):
    """What goes to one node in one piece: a call of the script, or a plain command.

    Attributes:
        tag: of its keys; or a node, if it goes there whatever it owns.
        deadline: when the caller's patience ends, whatever happens; None for never.
        operations: of the script, with their positions among all that were asked.
        command: the plain command.
        reply: what came back last: lines, an error, or what a command returned.
        retry: how often it was sent, from the first failure on.
    """

    __slots__ = ("command", "deadline", "operations", "positions", "reply", "retry", "tag")

    def __init__(
        self, tag: str | Node, deadline: float | None, command: Sequence[Any] = ()
    ) -> None:
        super().__init__()
        self.tag = tag
        self.deadline = deadline
        self.command = command
        self.operations: list[commands.Operation] = []
        self.positions: list[int] = []
        self.reply: Any = None
        self.retry: Retry | None = None


class NodeExchange:
    """The connections of threads to the nodes, and what is exchanged over them.

    Args:
        slot_map: is notified of redirections.
        receiver: what receives news.
        script: the script.
        new_pool: makes the connections to a node; the seconds are those of a reply.
        timeout: seconds that a reply may take.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        slot_map: SlotMap,
        receiver: Receiver,
        script: Script,
        new_pool: Callable[[Node, float], ConnectionPool],
        *,
        timeout: float,
        min_replicas: MinReplicas | None,
    ) -> None:
        self._slot_map = slot_map
        self._receiver = receiver
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._new_pool = new_pool
        self.timeout = timeout + (0.0 if min_replicas is None else min_replicas.timeout)
        self._min_replicas = min_replicas
        self._invocations = receiver.invocations
        self._only = self._invocations.at(ONLY_NODE)
        self._pools: dict[Node, ConnectionPool] = {}

    def close(self) -> None:
        """Close the connections, unless they are the user's."""
        self.keep(())

    def keep(self, nodes: Iterable[Node]) -> None:
        """Close the connections to all other nodes: no call would find out that they have ended."""
        for node in self._pools.keys() - {*nodes}:
            pool = self._pools.pop(node, None)
            if pool is not None:  # else another thread closes it
                pool.close()

    def __call__(self, node: Node, calls: list[ThreadCall]) -> None:
        """Send calls to a node, and note the reply of each.

        Raises:
            RedisError, OSError: there is no connection, or it was lost while replicas were asked.
        """
        sent_at = time.monotonic()
        pool = self._pool_of(node)
        asked_by = min((call.deadline for call in calls if call.deadline), default=None)
        deadline = bounded(asked_by, sent_at, self.timeout)
        connection: Any = None
        try:
            connection = pool.take(deadline)
            received = self._exchange(connection, calls, node, deadline)
            for call, reply in zip(calls, received, strict=False):
                call.reply = self._read(connection, call, reply, node)
            # Where they are fewer, the last one says why: those behind it are asked for again.
            last = received[-1]
            if isinstance(last, RedisError):
                if isinstance(last, ConnectionError | TimeoutError):
                    self._lost(pool, node)
                else:
                    last = ConnectionError("Connection closed: a reply could not be read")
                for call in calls[len(received) :]:
                    call.reply = last
            if self._min_replicas is not None:
                least = self._min_replicas
                self._confirm(connection, node, calls, least, deadline, sent_at=sent_at)
        finally:
            if connection is not None:
                pool.put_back(connection)

    def one(self, node: Node, call: ThreadCall, deadline: float) -> None:
        """Send a new call of the script, and note its reply: the short way, without replicas.

        Raises:
            RedisError, OSError: there is no connection.
        """
        pool = self._pools.get(node) or self._pool_of(node)
        connection: Any = None
        try:
            connection = pool.take(deadline)
            packed = call.encoded(self._encode, call.operations, self._only)
            (reply,) = exchange(connection, packed, 1, deadline)
            call.reply = self._read(connection, call, reply, node)
            if isinstance(reply, ConnectionError | TimeoutError):
                self._lost(pool, node)
        finally:
            if connection is not None:
                pool.put_back(connection)

    def _pool_of(self, node: Node) -> ConnectionPool:
        pool = self._pools.get(node)
        if pool is None:
            pool = self._pools.setdefault(node, self._new_pool(node, self.timeout))
        return pool

    def _lost(self, pool: ConnectionPool, node: Node) -> None:
        pool.drop_idle()  # they may be dead as well
        self._invocations.at(node).forget()

    def _exchange(
        self, connection: Any, calls: list[ThreadCall], node: Node, deadline: float
    ) -> list[Any]:
        """Send calls and return their replies; where they are fewer, the last one says why."""
        packed = b"".join([self._packed(call, node) for call in calls])
        loading = sum(call.loads for call in calls)
        received = exchange(connection, packed, len(calls) + loading, deadline)
        if not loading:
            return received
        rest = deque(received)
        found: list[Any] = []
        for call in calls:
            if call.loads and len(rest) > 1:
                call.loaded(rest.popleft(), self._invocations.at(node))
            if rest:
                found.append(rest.popleft())
        return found

    def _packed(self, call: ThreadCall, node: Node) -> bytes:
        if call.command:
            return commands.packed_command(*call.command)
        return call.encoded(self._encode, call.operations, self._invocations.at(node))

    def _read(self, connection: Any, call: ThreadCall, reply: Any, node: Node) -> Any:
        if isinstance(reply, RedisError):
            operations, invocation = call.operations, self._invocations.at(node)
            if operations and call.change_form(reply, invocation, operations):
                return reply
            if isinstance(reply, MovedError):
                self._slot_map.moved(reply, node)
            elif isinstance(reply, ReadOnlyError | AuthenticationError):
                # It may be another server that is written to by now, or another password.
                self._receiver.refusals.note(reply)
                connection.disconnect()
            return reply
        if call.command:
            return reply
        try:
            return replies.lines_of(reply, len(call.operations))
        except ResponseError as error:
            return error

    def _carry_out(
        self,
        connection: Any,
        operations: list[commands.Operation],
        node: Node,
        deadline: float,
    ) -> Any:
        """Carry out operations over this connection, in whichever form the node takes them."""
        call = ThreadCall(node, deadline)
        call.operations = operations
        while call.reply is None or call.refused:
            reply = self._exchange(connection, [call], node, deadline)[-1]
            call.reply = self._read(connection, call, reply, node)
        return call.reply

    # -- replicas ---------------------------------------------------------------------------------

    def _confirm(
        self,
        connection: Any,
        node: Node,
        calls: list[ThreadCall],
        least: MinReplicas,
        deadline: float,
        *,
        sent_at: float,
    ) -> None:
        """Have replicas confirm what was granted, or give it back."""
        found: list[tuple[ThreadCall, Grants]] = []
        for call in calls:
            if call.operations and not isinstance(call.reply, Exception):
                grants = grants_of(call.operations, call.reply)
                if grants is not None:
                    found.append((call, grants))
        if not found:
            return
        wait = commands.packed_command(*least.command())
        (confirmed,) = exchange(connection, wait, 1, deadline)
        if isinstance(confirmed, ConnectionError | TimeoutError):
            raise confirmed
        if not isinstance(confirmed, int):  # an error, or nothing of WAIT's
            confirmed = 0
        if confirmed >= least.least:
            return
        for call, grants in found:
            lines: list[str] = call.reply
            releases = give_back(call.operations, lines, grants, self._receiver.key_of_request)
            if releases:
                reply = self._carry_out(connection, releases, node, deadline)
                if isinstance(reply, ConnectionError | TimeoutError):
                    raise reply
                lines += reply[len(releases) :] if isinstance(reply, list) else []
            if grants.positions:
                news = lines[len(call.operations) :]
                self._receiver.receive(news, sent_at, in_callers_thread=True)
                call.reply = least.missed(confirmed)
