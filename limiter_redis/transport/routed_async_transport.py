"""Calls of the script by an event loop, each to the node with its keys; see `AsyncTransport`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ClusterDownError, MovedError, ResponseError

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemThread, run_in_thread
from limiter_redis.cluster.redirects import failure, is_about_the_map
from limiter_redis.cluster.replicas import MinReplicas, give_back
from limiter_redis.cluster.slot_map import SlotMap, tag_of_operation
from limiter_redis.connection.nodes import CONNECT_TIMEOUT, Endpoint, Node
from limiter_redis.protocol import commands
from limiter_redis.protocol.commands import BATCH
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver, ThreadTransport
from limiter_redis.transport.loop_transport import LoopTransport
from limiter_redis.transport.node_connection import Call, Confirmation, NodeConnection
from limiter_redis.transport.pending import Pending, deliver, fail, new_pending


class _TagQueue:
    """The operations of one tag.

    One call of a tag is on its way at a time: none overtakes another, whatever way it is sent.

    Attributes:
        gathered: what is asked meanwhile.
        call: the one on its way.
        singly: how many operations at the front travel alone, since one of them was refused.
    """

    __slots__ = ("call", "gathered", "singly")

    def __init__(self) -> None:
        self.gathered: list[Pending] = []
        self.call: Call | None = None
        self.singly = 0


class RoutedAsyncTransport(LoopTransport):
    """Calls of the nodes of a cluster, from one event loop, over one connection to each.

    Args:
        endpoint: where they are.
        slot_map: which node has what.
        receiver: what receives news.
        script: the script.
        plain: the way of plain commands, which are seldom: a thread's.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        slot_map: SlotMap,
        receiver: Receiver,
        script: Script,
        plain: ThreadTransport,
        *,
        min_replicas: MinReplicas | None = None,
    ) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._slot_map = slot_map
        self._receiver = receiver
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._plain = plain
        self._min_replicas = min_replicas
        self._connections: dict[Node, NodeConnection] = {}
        self._queues: dict[str, _TagQueue] = {}
        self._ready: dict[str, _TagQueue] = {}
        """Queues with something to send and nothing on its way."""
        self._delayed: dict[Call, asyncio.TimerHandle | None] = {}
        """Calls that are to be sent again: after a while, or (None) when the map is known."""
        self._flush_is_due = False
        self._refreshing = False

    def submit(
        self, operation: commands.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply. See `AsyncTransport.submit`."""
        asked = self._new_pending(operation, deadline)
        self._gather(tag_of_operation(self._receiver.keyspace, operation), [asked])
        return asked.future

    def _new_pending(self, operation: commands.Operation, deadline: float | None = None) -> Pending:
        return new_pending(self.loop, operation, deadline, self._endpoint.where)

    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        call = self._plain.command
        return await run_in_thread(lambda: call(*command, node=node))

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        return await run_in_thread(self._plain.nodes)

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""
        self._closed = True
        for connection in self._connections.values():
            connection.abandon()
        self._plain.close()

    def _asked(self) -> list[asyncio.Future[str]]:
        queues = list(self._queues.values())
        pending = [each for queue in queues for each in queue.gathered]
        pending += [each for queue in queues if queue.call for each in queue.call.pending]
        return [each.future for each in pending]

    async def _close(self) -> None:
        for timer in self._delayed.values():
            if timer is not None:
                timer.cancel()
        for connection in self._connections.values():
            await connection.aclose()
        self._plain.close()

    # -- sending ----------------------------------------------------------------------------------

    def _gather(self, tag: str, asked: list[Pending]) -> None:
        queue = self._queues.get(tag)
        if queue is None:
            queue = self._queues[tag] = _TagQueue()
        queue.gathered += asked
        if queue.call is None:
            self._ready[tag] = queue
            if not self._flush_is_due:
                if not self._receiver.is_alone():
                    # Let come along what others ask in this turn.
                    self.loop.call_soon(self._flush)
                    self._flush_is_due = True  # last: if the line before is interrupted, it is not
                else:
                    self._flush()

    def _flush(self) -> None:
        try:
            self._flush_now()
        except BaseException:
            self.interrupted()
            raise

    def _flush_now(self) -> None:
        self._flush_is_due = False
        ready, self._ready = self._ready, {}
        calls: list[Call] = []
        give_up_at = time.monotonic() + self._endpoint.timeout
        for tag, queue in ready.items():
            size = 1 if queue.singly else BATCH
            queue.singly = max(0, queue.singly - 1)
            queue.call = Call(tag, queue.gathered[:size], give_up_at)
            del queue.gathered[:size]
            calls.append(queue.call)
        self._send_now(calls)

    def _send(self, call: Call, touched: set[NodeConnection]) -> None:
        node = self._slot_map.node_of(call.tag)
        if node is not None:
            connection = self._connection_to(node)
            connection.send(call)
            touched.add(connection)
        elif self._slot_map.version == 0:
            self._delayed[call] = None
            self._refresh()
        else:
            self._put_off(call, ClusterDownError("no node owns the slot of " + call.tag))

    def _connection_to(self, node: Node) -> NodeConnection:
        connection = self._connections.get(node)
        if connection is None:
            if self._beginning is None:
                self._beginning = self.loop.create_task(self._begin_lifetime())
            connection = self._connections[node] = NodeConnection(
                node,
                self._endpoint.async_client(node),
                self._encode,
                self._receiver.invocations.at(node),
                self,
                timeout=self._endpoint.timeout,
                connect_timeout=min(self._endpoint.timeout, CONNECT_TIMEOUT),
                min_replicas=self._min_replicas,
                refusals=self._receiver.refusals,
            )
        return connection

    # -- answers ----------------------------------------------------------------------------------

    def carried_out(self, connection: NodeConnection, call: Call, lines: list[str]) -> None:  # noqa: ARG002
        """Hand out replies and news."""
        deliver(call.pending, lines)
        if len(lines) > len(call.pending):
            news = lines[len(call.pending) :]
            self._receiver.receive(news, call.sent_at, in_callers_thread=True)
        self._over(call)

    def refused(self, connection: NodeConnection, call: Call, error: Exception) -> None:
        """Send a call again, if that may help."""
        if isinstance(error, MovedError):
            self._slot_map.moved(error, connection.node)
        elif not isinstance(error, ResponseError):
            self._receiver.messages_lost()  # the news that came with lost replies are lost
        self._put_off(call, error)

    def confirmed(self, connection: NodeConnection, question: Confirmation, replicas: int) -> None:
        """Hand out what replicas have; give back what they have not."""
        call, lines, grants, _ = question
        least = self._min_replicas
        if least is not None and replicas < least.least:
            operations = [asked.operation for asked in call.pending]
            releases = give_back(operations, lines, grants, self._receiver.key_of_request)
            unsafe = [call.pending[each] for each in grants.positions]
            fail(unsafe, lambda _: least.missed(replicas))
            # Before all that is asked from now on: a caller that was refused may ask again at once.
            queue = self._queues[call.tag]
            queue.gathered[:0] = [self._new_pending(each) for each in releases]
        self.carried_out(connection, call, lines)

    def _put_off(self, call: Call, error: Exception) -> None:
        """Send a call again after a while, or give it up."""
        call.form = None
        pause = call.retry.backoff_after(error, time.monotonic())
        if pause is None:
            self._give_up(call, error)
            return
        if is_about_the_map(error) and (pause or self._slot_map.is_stale()):
            self._refresh()
        self._delayed[call] = self.loop.call_later(pause, self._send_again, call)

    def _send_again(self, *calls: Call) -> None:
        try:
            for call in calls:
                self._delayed.pop(call, None)
            self._send_now([*calls])
        except BaseException:
            self.interrupted()
            raise

    def interrupted(self) -> None:
        """Send anew, over other connections, all that may not have been answered.

        See `AsyncTransport._recover`. What is in flight stands in a queue, whatever happened.
        """
        for connection in self._connections.values():
            connection.reset()
        for timer in self._delayed.values():
            if timer is not None:
                timer.cancel()
        self._delayed.clear()
        self._ready.clear()
        calls: list[Call] = []
        for tag, queue in list(self._queues.items()):
            if queue.call is not None:
                sent = {asked.future for asked in queue.call.pending}
                queue.gathered = [each for each in queue.gathered if each.future not in sent]
                calls.append(queue.call)
            elif queue.gathered:
                self._ready[tag] = queue
            else:
                del self._queues[tag]
        self._refreshing = False
        self._receiver.messages_lost()
        if not self._closed:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)
            self.loop.call_soon(self._send_again, *calls)

    def _send_now(self, calls: list[Call]) -> None:
        touched: set[NodeConnection] = set()
        for call in calls:
            self._send(call, touched)
        for connection in touched:
            connection.push()

    def _give_up(self, call: Call, error: Exception) -> None:
        if isinstance(error, ResponseError) and len(call.pending) > 1:
            # One that cannot be done must not take the others along.
            queue = self._queues[call.tag]
            queue.gathered[:0] = call.pending
            queue.singly += len(call.pending)
        else:
            where = self._endpoint.where
            fail(call.pending, lambda operations: failure(error, where, operations))
        self._over(call)

    def _over(self, call: Call) -> None:
        """Let the next call of the same tag go."""
        queue = self._queues[call.tag]
        queue.call = None
        if not queue.gathered:
            del self._queues[call.tag]
            return
        self._ready[call.tag] = queue
        if not self._flush_is_due:
            # Behind the callers that were woken, for they ask for more.
            self.loop.call_soon(self._flush)
            self._flush_is_due = True

    # -- the map ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Refresh the slot map in a thread of its own: the loop's are perhaps all busy."""
        if self._refreshing or self._closed:
            return
        self._refreshing = True
        seen = self._slot_map.version
        SystemThread(lambda: self._refresh_now(seen), "limiter-slots").start()

    def _refresh_now(self, seen: int) -> None:
        trouble: Exception | None = None
        try:
            self._slot_map.refresh(seen)
        except Exception as error:  # noqa: BLE001
            trouble = error
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._refreshed, trouble)

    def _refreshed(self, trouble: Exception | None) -> None:
        try:
            self._refreshed_now(trouble)
        except BaseException:
            self.interrupted()
            raise

    def _refreshed_now(self, trouble: Exception | None) -> None:
        self._refreshing = False
        calls = [call for call, timer in self._delayed.items() if timer is None]
        for call in calls:
            del self._delayed[call]
        if trouble is None:
            self._send_now(calls)
        else:
            for call in calls:
                self._put_off(call, trouble)
