"""Calls of the script by threads, each to the node that owns its keys; see `SyncTransport`."""

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
from limiter_redis.cluster.slot_map import SlotMap, tag_of_operation
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import OwnPool, exchange
from limiter_redis.connection.nodes import Endpoint, Node
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.errors import is_driver_error, store_error
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver


class _NodeCall:
    """What goes to one node in one piece: a call of the script, or a plain command.

    Attributes:
        tag: of its keys; or a node, if it goes there whatever it owns.
        deadline: when the caller's patience ends, whatever happens; None for never.
        operations: of the script, with their places among all that were asked.
        reply: what came back last.
    """

    def __init__(
        self,
        tag: str | Node,
        give_up_at: float,
        command: Sequence[Any] = (),
        deadline: float | None = None,
    ) -> None:
        self.tag = tag
        self.deadline = deadline
        self.command = command
        self.operations: list[commands.Operation] = []
        self.places: list[int] = []
        self.by_text = False
        self.reply: Any = None
        self.retry = Retry(give_up_at)


class RoutedSyncTransport:
    """Calls of the nodes of a cluster, from any thread.

    Args:
        place: where they are.
        slot_map: who owns what.
        receiver: what receives news.
        script: the script.
        timeout: seconds that a reply may take.
        patience: seconds that a call is repeated; default, as long.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        place: Endpoint,
        slot_map: SlotMap,
        receiver: Receiver,
        script: Script,
        *,
        timeout: float,
        patience: float | None = None,
        min_replicas: MinReplicas | None = None,
    ) -> None:
        self._endpoint = place
        self._slot_map = slot_map
        self._receiver = receiver
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._timeout = timeout
        self._patience = timeout if patience is None else patience
        self._min_replicas = min_replicas
        self._connections: dict[Node, OwnPool] = {}
        self.reply_lost: Callable[[], object] = bool
        """Is called when a reply may have been lost, and with it news."""

    def call(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations and return the replies, then the news; see `SyncTransport.call`."""
        sent_at = time.monotonic()
        lines, news = self.call_each(operations, deadline)
        for line in lines:
            if isinstance(line, StoreError):
                self._receiver.receive(news, sent_at, in_callers_thread=True)
                raise line
        return [line for line in lines if isinstance(line, str)] + news

    def call_each(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        give_up_at = bounded(deadline, time.monotonic(), self._patience)
        calls: dict[str, _NodeCall] = {}
        for place, operation in enumerate(operations):
            tag = tag_of_operation(self._receiver.keyspace, operation)
            call = calls.get(tag)
            if call is None:
                call = calls[tag] = _NodeCall(tag, give_up_at, deadline=deadline)
            call.operations.append(operation)
            call.places.append(place)
        self._run([*calls.values()])
        lines: list[str | StoreError] = [""] * len(operations)
        news: list[str] = []
        for call in calls.values():
            reply, count = call.reply, len(call.places)
            if isinstance(reply, StoreError):
                each: list[str | StoreError] = [reply] * count
                if count > 1 and isinstance(reply.__cause__, ResponseError):
                    # One that cannot be done must not take the others along.
                    each = []
                    for operation in call.operations:
                        (line,), told = self.call_each([operation], give_up_at)
                        each.append(line)
                        news += told
            else:
                each = [*reply[:count]]
                news += reply[count:]
            for place, line in zip(call.places, each, strict=True):
                lines[place] = line
        return lines, news

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        where = command[1] if node is None else node
        call = _NodeCall(where, time.monotonic() + self._patience, command)
        self._run([call])
        if isinstance(call.reply, StoreError):
            raise call.reply
        return call.reply

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        try:
            self._slot_map.refresh(0)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._endpoint.where) from error
            raise
        return self._slot_map.masters()

    def close(self) -> None:
        """Close the connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    # -- the way there ----------------------------------------------------------------------------

    def _run(self, calls: list[_NodeCall]) -> None:
        """Have calls done, or find out why that cannot be."""
        while calls:
            seen = self._slot_map.version
            self._send(calls)
            again: list[_NodeCall] = []
            pause = 0.0
            trouble: Exception | None = None
            script_sent = False
            for call in calls:
                error = call.reply
                if not isinstance(error, Exception) or isinstance(error, StoreError):
                    continue  # done, or not confirmed by replicas
                if not isinstance(error, ResponseError):
                    self.reply_lost()
                if isinstance(error, NoScriptError) and not call.by_text:
                    # One takes the script along, the others come behind it.
                    call.by_text, script_sent = not script_sent, True
                    again.append(call)
                    continue
                now = time.monotonic()
                wait = call.retry.backoff_after(error, now)
                if wait is not None and call.deadline is not None:
                    wait = wait if now + wait < call.deadline else None
                if wait is None:
                    call.reply = failure(error, self._endpoint.where, call.operations)
                    continue
                pause = max(pause, wait)
                again.append(call)
                if is_about_the_map(error) and (wait or self._slot_map.is_stale()):
                    trouble = error
            if trouble is not None:
                self._refresh(seen)
            if pause:
                time.sleep(pause)
            calls = again

    def _refresh(self, seen: int) -> Exception | None:
        try:
            self._slot_map.refresh(seen)
        except Exception as error:
            if is_driver_error(error):
                return error
            raise
        return None

    def _send(self, calls: list[_NodeCall]) -> None:
        by_node: dict[Node, list[_NodeCall]] = {}
        error: Exception | None = None
        if self._slot_map.version == 0:
            error = self._refresh(0)
        for call in calls:
            tag = call.tag
            node = self._slot_map.node_of(tag) if isinstance(tag, str) else tag
            if node is None:
                call.reply = error or ClusterDownError("no node owns the slot of " + str(tag))
            else:
                by_node.setdefault(node, []).append(call)
        for node, some in by_node.items():
            for call in some:
                call.reply = None
            try:
                self._exchange(node, some)
            except BaseException as trouble:
                if not isinstance(trouble, Exception) or not is_driver_error(trouble):
                    self.reply_lost()
                    raise
                for call in some:
                    if call.reply is None or self._min_replicas is not None:
                        call.reply = trouble

    def _exchange(self, node: Node, calls: list[_NodeCall]) -> None:
        sent_at = time.monotonic()
        connections = self._connections.get(node)
        waits = 0.0 if self._min_replicas is None else self._min_replicas.timeout
        if connections is None:
            client = self._endpoint.sync_client(node, timeout=self._timeout + waits)
            connections = self._connections.setdefault(
                node, OwnPool(client, self._receiver.refusals)
            )
        asked_by = min((each.deadline for each in calls if each.deadline), default=None)
        deadline = bounded(asked_by, time.monotonic(), self._timeout + waits)
        connection: Any = None
        try:
            connection = connections.take(deadline)
            packed = b"".join(self._packed(call) for call in calls)
            replies = exchange(connection, packed, len(calls), deadline)
            for call, reply in zip(calls, replies, strict=False):
                call.reply = self._read(connection, call, reply, node)
            # Where they are fewer, the last one says why: those behind it are asked for again.
            last = replies[-1]
            if not isinstance(last, ConnectionError | TimeoutError):
                last = ConnectionError("Connection closed: a reply could not be read")
            else:
                connections.drop_idle()  # they may be dead as well
            for call in calls[len(replies) :]:
                call.reply = last
            if self._min_replicas is not None:
                least = self._min_replicas
                self._confirm(connection, node, calls, least, deadline, sent_at=sent_at)
        finally:
            if connection is not None:
                connections.put_back(connection)

    def _packed(self, call: _NodeCall) -> bytes:
        if call.command:
            return commands.packed_command(*call.command)
        return self._encode(call.operations, by_text=call.by_text)

    def _read(self, connection: Any, call: _NodeCall, reply: Any, node: Node) -> Any:
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
        calls: list[_NodeCall],
        least: MinReplicas,
        deadline: float,
        *,
        sent_at: float,
    ) -> None:
        """Have replicas confirm what was granted, or give it back."""
        found: list[tuple[_NodeCall, Grants]] = []
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
