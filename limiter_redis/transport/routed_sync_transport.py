"""Calls of the script by threads, each to the node that owns its keys; see `Wire`."""

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
from limiter_redis.cluster.redirects import (
    Grants,
    MinReplicas,
    Tries,
    failure,
    give_back,
    grants_of,
    is_about_the_map,
)
from limiter_redis.cluster.slot_map import Node, Slots, tag_of_operation
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.endpoints import Place
from limiter_redis.connection.exchange import OwnConnections, exchange
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.errors import is_driver_error
from limiter_redis.protocol.script import Script
from limiter_redis.session.tracker import Hub
from limiter_redis.transport.sync_transport import store_error


class _Errand:
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
        self.operations: list[protocol.Operation] = []
        self.places: list[int] = []
        self.by_text = False
        self.reply: Any = None
        self.tries = Tries(give_up_at)


class RoutedWire:
    """Calls of the nodes of a cluster, from any thread.

    Args:
        place: where they are.
        slots: who owns what.
        hub: who hears news.
        script: the script.
        timeout: seconds that a reply may take.
        patience: seconds that a call is repeated; default, as long.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        place: Place,
        slots: Slots,
        hub: Hub,
        script: Script,
        *,
        timeout: float,
        patience: float | None = None,
        min_replicas: MinReplicas | None = None,
    ) -> None:
        self._place = place
        self._slots = slots
        self._hub = hub
        self._encode = protocol.Encoder(script, hub.names, hub.process)
        self._timeout = timeout
        self._patience = timeout if patience is None else patience
        self._min_replicas = min_replicas
        self._connections: dict[Node, OwnConnections] = {}
        self.reply_lost: Callable[[], object] = bool
        """Is called when a reply may have been lost, and with it news."""

    def call(
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations and return the replies, then the news; see `Wire.call`."""
        sent_at = time.monotonic()
        lines, news = self.call_each(operations, deadline)
        for line in lines:
            if isinstance(line, StoreError):
                self._hub.hear(news, sent_at, in_callers_thread=True)
                raise line
        return [line for line in lines if isinstance(line, str)] + news

    def call_each(
        self, operations: Sequence[protocol.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        give_up_at = bounded(deadline, time.monotonic(), self._patience)
        errands: dict[str, _Errand] = {}
        for place, operation in enumerate(operations):
            tag = tag_of_operation(self._hub.names, operation)
            errand = errands.get(tag)
            if errand is None:
                errand = errands[tag] = _Errand(tag, give_up_at, deadline=deadline)
            errand.operations.append(operation)
            errand.places.append(place)
        self._run([*errands.values()])
        lines: list[str | StoreError] = [""] * len(operations)
        news: list[str] = []
        for errand in errands.values():
            reply, count = errand.reply, len(errand.places)
            if isinstance(reply, StoreError):
                each: list[str | StoreError] = [reply] * count
                if count > 1 and isinstance(reply.__cause__, ResponseError):
                    # One that cannot be done must not take the others along.
                    each = []
                    for operation in errand.operations:
                        (line,), told = self.call_each([operation], give_up_at)
                        each.append(line)
                        news += told
            else:
                each = [*reply[:count]]
                news += reply[count:]
            for place, line in zip(errand.places, each, strict=True):
                lines[place] = line
        return lines, news

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        where = command[1] if node is None else node
        errand = _Errand(where, time.monotonic() + self._patience, command)
        self._run([errand])
        if isinstance(errand.reply, StoreError):
            raise errand.reply
        return errand.reply

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        try:
            self._slots.learn(0)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._place.where) from error
            raise
        return self._slots.masters()

    def close(self) -> None:
        """Close the connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    # -- the way there ----------------------------------------------------------------------------

    def _run(self, errands: list[_Errand]) -> None:
        """Have errands done, or find out why that cannot be."""
        while errands:
            seen = self._slots.version
            self._send(errands)
            again: list[_Errand] = []
            pause = 0.0
            trouble: Exception | None = None
            taught = False
            for errand in errands:
                error = errand.reply
                if not isinstance(error, Exception) or isinstance(error, StoreError):
                    continue  # done, or not confirmed by replicas
                if not isinstance(error, ResponseError):
                    self.reply_lost()
                if isinstance(error, NoScriptError) and not errand.by_text:
                    # One takes the script along, the others come behind it.
                    errand.by_text, taught = not taught, True
                    again.append(errand)
                    continue
                now = time.monotonic()
                wait = errand.tries.pause_after(error, now)
                if wait is not None and errand.deadline is not None:
                    wait = wait if now + wait < errand.deadline else None
                if wait is None:
                    errand.reply = failure(error, self._place.where, errand.operations)
                    continue
                pause = max(pause, wait)
                again.append(errand)
                if is_about_the_map(error) and (wait or self._slots.is_old()):
                    trouble = error
            if trouble is not None:
                self._learn(seen)
            if pause:
                time.sleep(pause)
            errands = again

    def _learn(self, seen: int) -> Exception | None:
        try:
            self._slots.learn(seen)
        except Exception as error:
            if is_driver_error(error):
                return error
            raise
        return None

    def _send(self, errands: list[_Errand]) -> None:
        by_node: dict[Node, list[_Errand]] = {}
        error: Exception | None = None
        if self._slots.version == 0:
            error = self._learn(0)
        for errand in errands:
            tag = errand.tag
            node = self._slots.node_of(tag) if isinstance(tag, str) else tag
            if node is None:
                errand.reply = error or ClusterDownError("no node owns the slot of " + str(tag))
            else:
                by_node.setdefault(node, []).append(errand)
        for node, some in by_node.items():
            for errand in some:
                errand.reply = None
            try:
                self._exchange(node, some)
            except BaseException as trouble:
                if not isinstance(trouble, Exception) or not is_driver_error(trouble):
                    self.reply_lost()
                    raise
                for errand in some:
                    if errand.reply is None or self._min_replicas is not None:
                        errand.reply = trouble

    def _exchange(self, node: Node, errands: list[_Errand]) -> None:
        sent_at = time.monotonic()
        connections = self._connections.get(node)
        waits = 0.0 if self._min_replicas is None else self._min_replicas.timeout
        if connections is None:
            client = self._place.sync_client(node, timeout=self._timeout + waits)
            connections = self._connections.setdefault(
                node, OwnConnections(client, self._hub.refusals)
            )
        asked_by = min((each.deadline for each in errands if each.deadline), default=None)
        deadline = bounded(asked_by, time.monotonic(), self._timeout + waits)
        connection: Any = None
        try:
            connection = connections.take(deadline)
            packed = b"".join(self._packed(errand) for errand in errands)
            replies = exchange(connection, packed, len(errands), deadline)
            for errand, reply in zip(errands, replies, strict=False):
                errand.reply = self._read(connection, errand, reply, node)
            # Where they are fewer, the last one says why: those behind it are asked for again.
            last = replies[-1]
            if not isinstance(last, ConnectionError | TimeoutError):
                last = ConnectionError("Connection closed: a reply could not be read")
            else:
                connections.drop_idle()  # they may be dead as well
            for errand in errands[len(replies) :]:
                errand.reply = last
            if self._min_replicas is not None:
                least = self._min_replicas
                self._confirm(connection, node, errands, least, deadline, sent_at=sent_at)
        finally:
            if connection is not None:
                connections.put_back(connection)

    def _packed(self, errand: _Errand) -> bytes:
        if errand.command:
            return protocol.packed_command(*errand.command)
        return self._encode(errand.operations, by_text=errand.by_text)

    def _read(self, connection: Any, errand: _Errand, reply: Any, node: Node) -> Any:
        if isinstance(reply, RedisError):
            if isinstance(reply, MovedError):
                self._slots.moved(reply, node)
            elif isinstance(reply, ReadOnlyError | AuthenticationError):
                # It may be another server that is written to by now, or another password.
                self._hub.refusals.note(reply)
                connection.disconnect()
            return reply
        if errand.command:
            return reply
        try:
            return protocol.lines_of(reply, len(errand.operations))
        except ResponseError as error:
            return error

    # -- replicas ---------------------------------------------------------------------------------

    def _confirm(
        self,
        connection: Any,
        node: Node,
        errands: list[_Errand],
        least: MinReplicas,
        deadline: float,
        *,
        sent_at: float,
    ) -> None:
        """Have replicas confirm what was granted, or give it back."""
        found: list[tuple[_Errand, Grants]] = []
        for errand in errands:
            if errand.operations and not isinstance(errand.reply, Exception):
                grants = grants_of(errand.operations, errand.reply)
                if grants is not None:
                    found.append((errand, grants))
        if not found:
            return
        wait = protocol.packed_command(*least.command())
        (confirmed,) = exchange(connection, wait, 1, deadline)
        if isinstance(confirmed, ConnectionError | TimeoutError):
            raise confirmed
        if not isinstance(confirmed, int):  # an error, or nothing of WAIT's
            confirmed = 0
        if confirmed >= least.least:
            return
        for errand, grants in found:
            lines: list[str] = errand.reply
            releases = give_back(errand.operations, lines, grants, self._hub)
            if releases:
                (reply,) = exchange(connection, self._encode(releases), 1, deadline)
                if isinstance(reply, ConnectionError | TimeoutError):
                    raise reply
                told = self._read(connection, errand, reply, node)
                lines += told[len(releases) :] if isinstance(told, list) else []
            if grants.places:
                news = lines[len(errand.operations) :]
                self._hub.hear(news, sent_at, in_callers_thread=True)
                errand.reply = least.missed(confirmed)
