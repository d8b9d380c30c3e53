"""Calls of the script by threads: one round trip each, to the node that owns the keys.

One server is a cluster of one node. The slot map says what travels together (all, or what has one
tag), and the patience says how long a call is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
)

from limiter_core.errors import StoreError
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.redirects import Retry, failure, is_about_the_map
from limiter_redis.cluster.replicas import Grants, MinReplicas, give_back, grants_of
from limiter_redis.cluster.slot_map import SlotMap
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import ConnectionPool, exchange
from limiter_redis.connection.nodes import Node
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.errors import is_driver_error, store_error
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver


class _Call:
    """What goes to one node in one piece: a call of the script, or a plain command.

    Attributes:
        tag: of its keys; or a node, if it goes there whatever it owns.
        deadline: when the caller's patience ends, whatever happens; None for never.
        operations: of the script, with their positions among all that were asked.
        command: the plain command.
        reply: what came back last: lines, an error, or what a command returned.
        retry: how often it was sent, from the first failure on.
    """

    __slots__ = (
        *("by_text", "command", "deadline", "operations", "positions"),
        *("reply", "retry", "tag"),
    )

    def __init__(
        self, tag: str | Node, deadline: float | None, command: Sequence[Any] = ()
    ) -> None:
        self.tag = tag
        self.deadline = deadline
        self.command = command
        self.operations: list[commands.Operation] = []
        self.positions: list[int] = []
        self.by_text = False
        self.reply: Any = None
        self.retry: Retry | None = None


class SyncTransport:
    """Calls of the nodes, from any thread.

    Args:
        where: the store is, without secrets.
        slot_map: which node has what, and which operations travel together.
        receiver: what receives news.
        script: the script.
        new_pool: makes the connections to a node; the seconds are those of a reply.
        timeout: seconds that a reply may take.
        patience: seconds that a call is repeated; None: only one whose connection was lost is, once
            and at once, and the timeout is for both.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        where: str,
        slot_map: SlotMap,
        receiver: Receiver,
        script: Script,
        new_pool: Callable[[Node, float], ConnectionPool],
        *,
        timeout: float,
        patience: float | None,
        min_replicas: MinReplicas | None,
    ) -> None:
        self._where = where
        self._slot_map = slot_map
        self._receiver = receiver
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._new_pool = new_pool
        self._patience = patience
        self._min_replicas = min_replicas
        self._timeout = timeout + (0.0 if min_replicas is None else min_replicas.timeout)
        self._pools: dict[Node, ConnectionPool] = {}

    def call(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations (at most `BATCH`) and return the replies, then the news.

        Args:
            operations: one after the other.
            deadline: when the caller's patience ends, on the monotonic clock.

        Raises:
            StoreUnavailable: a node cannot be reached, or did not answer in time.
            StoreError: it answered with an error, or with what cannot be read.
        """
        sent_at = time.monotonic()
        calls = self._carry_out(operations, deadline, sent_at)
        if len(calls) == 1:
            reply = calls[0].reply
            if isinstance(reply, StoreError):
                raise reply
            return reply  # type: ignore[no-any-return]  # pyright: ignore[reportReturnType]
        lines, news = self._replies(calls, len(operations))
        for line in lines:
            if isinstance(line, StoreError):
                self._receiver.receive(news, sent_at, in_callers_thread=True)
                raise line
        return [line for line in lines if isinstance(line, str)] + news

    def call_each(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        now = time.monotonic()
        if self._patience is None:
            deadline = bounded(deadline, now, self._timeout)
        calls = self._carry_out(operations, deadline, now)
        lines, news = self._replies(calls, len(operations))
        for call in calls:
            error = call.reply
            if isinstance(error, StoreError) and isinstance(error.__cause__, ResponseError):
                # One that cannot be done must not take the others along.
                for position in call.positions if len(call.positions) > 1 else ():
                    (lines[position],), told = self.call_each([operations[position]], deadline)
                    news += told
        return lines, news

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        now = time.monotonic()
        deadline = bounded(None, now, self._timeout) if self._patience is None else None
        call = _Call(node or str(command[1 % len(command)]), deadline, command)
        self._run([call], now)
        if isinstance(call.reply, StoreError):
            raise call.reply
        return call.reply

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        try:
            self._slot_map.refresh(0)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._where) from error
            raise
        return self._slot_map.masters()

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        while self._pools:
            self._pools.popitem()[1].close()

    # -- calls ------------------------------------------------------------------------------------

    def _carry_out(
        self, operations: Sequence[commands.Operation], deadline: float | None, now: float
    ) -> list[_Call]:
        """Have operations carried out, in a call for each tag."""
        if self._patience is None:
            deadline = bounded(deadline, now, self._timeout)
        tag_of = self._slot_map.tag_of
        if len(operations) == 1:  # as nearly always: this is the hot path of threads
            call = _Call(tag_of(operations[0]), deadline)
            call.operations, call.positions = [*operations], [0]
            self._run([call], now)
            return [call]
        calls: dict[str, _Call] = {}
        for position, operation in enumerate(operations):
            tag = tag_of(operation)
            if tag not in calls:
                calls[tag] = _Call(tag, deadline)
            calls[tag].operations.append(operation)
            calls[tag].positions.append(position)
        found = [*calls.values()]
        self._run(found, now)
        return found

    def _replies(self, calls: list[_Call], count: int) -> tuple[list[str | StoreError], list[str]]:
        """Return the replies to so many operations, or why there is none, and the news."""
        lines: list[str | StoreError] = [""] * count
        news: list[str] = []
        for call in calls:
            reply = call.reply
            size = len(call.positions)
            each = [reply] * size if isinstance(reply, StoreError) else reply[:size]
            news += [] if isinstance(reply, StoreError) else reply[size:]
            for position, line in zip(call.positions, each, strict=True):
                lines[position] = line
        return lines, news

    def _run(self, calls: list[_Call], began_at: float) -> None:
        """Have calls carried out, or find out why that cannot be."""
        while calls:
            seen = self._slot_map.version
            self._send(calls)
            calls = [call for call in calls if isinstance(call.reply, Exception)]
            if calls:
                calls = self._to_repeat(calls, seen, began_at)

    def _to_repeat(self, failed: list[_Call], seen: int, began_at: float) -> list[_Call]:
        """Return the calls that are to be sent again, after the pause that it takes."""
        again: list[_Call] = []
        pause, map_is_wrong, script_sent = 0.0, False, False
        for call in failed:
            error = call.reply
            if isinstance(error, StoreError):
                continue  # not confirmed by replicas
            if not isinstance(error, ResponseError):
                self._receiver.messages_lost()
            if isinstance(error, NoScriptError) and not call.by_text:
                # One takes the script along, the others come behind it.
                call.by_text, script_sent = not script_sent, True
                again.append(call)
                continue
            now = time.monotonic()
            if call.retry is None:
                patience = self._patience
                bound = None if patience is None else bounded(call.deadline, began_at, patience)
                call.retry = Retry(bound)
            wait = call.retry.backoff_after(error, now)
            if wait is None or (call.deadline is not None and now + wait >= call.deadline):
                call.reply = failure(error, self._where, call.operations)
                continue
            pause = max(pause, wait)
            again.append(call)
            map_is_wrong |= is_about_the_map(error) and (wait > 0 or self._slot_map.is_stale())
        if map_is_wrong:
            self._refresh(seen)
        if pause:
            time.sleep(pause)
        return again

    def _refresh(self, seen: int) -> Exception | None:
        try:
            self._slot_map.refresh(seen)
        except Exception as error:
            if is_driver_error(error):
                return error
            raise
        return None

    def _send(self, calls: list[_Call]) -> None:
        error = self._refresh(0) if self._slot_map.version == 0 else None
        by_node: dict[Node, list[_Call]] = {}
        for call in calls:
            tag = call.tag
            node = self._slot_map.node_of(tag) if isinstance(tag, str) else tag
            if node is None:
                call.reply = error or ClusterDownError(f"no node owns the slot of {tag}")
            else:
                call.reply = None
                by_node.setdefault(node, []).append(call)
        for node, some in by_node.items():
            try:
                self._exchange(node, some)
            except BaseException as trouble:
                if not isinstance(trouble, Exception) or not is_driver_error(trouble):
                    self._receiver.messages_lost()
                    raise
                for call in some:
                    if call.reply is None or self._min_replicas is not None:
                        call.reply = trouble

    def _exchange(self, node: Node, calls: list[_Call]) -> None:
        sent_at = time.monotonic()
        pool = self._pools.get(node)
        if pool is None:
            pool = self._pools.setdefault(node, self._new_pool(node, self._timeout))
        first = calls[0]
        alone = len(calls) == 1
        asked_by = first.deadline
        if not alone:
            asked_by = min((call.deadline for call in calls if call.deadline), default=None)
        deadline = bounded(asked_by, sent_at, self._timeout)
        connection: Any = None
        try:
            connection = pool.take(deadline)
            packed = self._packed(first) if alone else b"".join(map(self._packed, calls))
            received = exchange(connection, packed, len(calls), deadline)
            for call, reply in zip(calls, received, strict=False):
                call.reply = self._read(connection, call, reply, node)
            # Where they are fewer, the last one says why: those behind it are asked for again.
            last = received[-1]
            if isinstance(last, RedisError):
                if isinstance(last, ConnectionError | TimeoutError):
                    pool.drop_idle()  # they may be dead as well
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

    def _packed(self, call: _Call) -> bytes:
        if call.command:
            return commands.packed_command(*call.command)
        return self._encode(call.operations, by_text=call.by_text)

    def _read(self, connection: Any, call: _Call, reply: Any, node: Node) -> Any:
        if isinstance(reply, RedisError):
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

    # -- replicas ---------------------------------------------------------------------------------

    def _confirm(
        self,
        connection: Any,
        node: Node,
        calls: list[_Call],
        least: MinReplicas,
        deadline: float,
        *,
        sent_at: float,
    ) -> None:
        """Have replicas confirm what was granted, or give it back."""
        found: list[tuple[_Call, Grants]] = []
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
                (reply,) = exchange(connection, self._encode(releases), 1, deadline)
                if isinstance(reply, ConnectionError | TimeoutError):
                    raise reply
                told = self._read(connection, call, reply, node)
                lines += told[len(releases) :] if isinstance(told, list) else []
            if grants.positions:
                news = lines[len(call.operations) :]
                self._receiver.receive(news, sent_at, in_callers_thread=True)
                call.reply = least.missed(confirmed)
