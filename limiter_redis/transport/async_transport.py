"""Calls of the script by an event loop, each to the node with its keys.

One server is a cluster of one node. What is asked in one turn of the loop travels in one round
trip, as far as the slot map lets it: all, or what has one tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MovedError,
    ReadOnlyError,
    ResponseError,
)

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import run_in_thread
from limiter_redis.cluster.redirects import Retry, failure, is_about_the_map
from limiter_redis.cluster.replicas import MinReplicas, give_back
from limiter_redis.cluster.slot_map import MapRefresher, SlotMap
from limiter_redis.connection.nodes import CONNECT_TIMEOUT, ONLY_NODE, Endpoint, Node
from limiter_redis.protocol import commands
from limiter_redis.protocol.script import Script
from limiter_redis.transport.batching import BatchingTransport
from limiter_redis.transport.calls import Call, Confirmation
from limiter_redis.transport.interfaces import Receiver, ThreadTransport
from limiter_redis.transport.node_connection import NodeConnection
from limiter_redis.transport.pending import Pending, deliver, fail


class AsyncTransport(BatchingTransport):
    """Calls of the nodes, from one event loop, over one connection to each.

    Args:
        endpoint: where they are.
        slot_map: which node has what, and which operations travel together.
        receiver: what receives news.
        script: the script.
        plain: the way of plain commands, which are seldom: a thread's; None: the node has all.
        in_flight: how many calls of a tag may be on their way at once.
        patience: seconds that a call is repeated; None: only one whose connection was lost is, once
            and at once.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        slot_map: SlotMap,
        receiver: Receiver,
        script: Script,
        plain: ThreadTransport | None,
        *,
        in_flight: int,
        patience: float | None,
        min_replicas: MinReplicas | None,
    ) -> None:
        timeout = endpoint.timeout if patience is None else None
        super().__init__(endpoint.where, slot_map, receiver, in_flight, timeout)
        self._endpoint = endpoint
        self._plain = plain
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._patience = patience
        self._min_replicas = min_replicas
        self._connections: dict[Node, NodeConnection] = {}
        self._refresher = MapRefresher(slot_map, self._refreshed_elsewhere)

    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        plain = self._plain
        if plain is None:
            connection = self._connections.get(ONLY_NODE) or self._connection_to(ONLY_NODE)
            return await connection.command(*command)
        return await run_in_thread(lambda: plain.command(*command, node=node))

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        return [ONLY_NODE] if self._plain is None else await run_in_thread(self._plain.nodes)

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""
        self._closed = True
        for connection in self._connections.values():
            connection.abandon()
        if self._plain is not None:
            self._plain.close()

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._is_watched = self._timeout is None
        unanswered = self._asked()
        # What is asked while these are closed, as by a stream that cleans up for longer than its
        # event loop waited, is carried out over others.
        self._forget_sent()
        connections, self._connections = self._connections, {}
        for queue in self._queues.values():
            queue.clear()
        self._fail(unanswered, ConnectionError("the store was closed before it answered"))
        for connection in connections.values():
            await connection.aclose()
        if self._plain is not None:
            self._plain.close()

    # -- sending ----------------------------------------------------------------------------------

    def _send(self, call: Call) -> Callable[[], object] | None:
        node = ONLY_NODE if self._only_queue else self._slot_map.node_of(call.queue.tag)
        if node is not None:
            connection = self._connections.get(node) or self._connection_to(node)
            connection.send(call)
            return connection.push
        if self._slot_map.version == 0:
            self._delayed[call] = None
            self._refresh_map()
        else:
            self._put_off(call, ClusterDownError("no node owns the slot of " + call.queue.tag))
        return None

    def _connection_to(self, node: Node) -> NodeConnection:
        timeout, repeats = self._endpoint.timeout, self._patience is not None
        connection = self._connections[node] = NodeConnection(
            node,
            self._endpoint.async_client(node),
            self._encode,
            self._receiver.invocations.at(node),
            self,
            timeout=timeout,
            connect_timeout=min(timeout, CONNECT_TIMEOUT) if repeats else timeout,
            min_replicas=self._min_replicas,
            refusals=self._receiver.refusals,
            where=self._where,
        )
        return connection

    # -- answers ----------------------------------------------------------------------------------

    def carried_out(self, call: Call, lines: list[str]) -> None:
        """Hand out replies and news."""
        self._is_answered = True
        deliver(call.pending, lines)
        if len(lines) > len(call.pending):
            news = lines[len(call.pending) :]
            self._receiver.receive(news, call.sent_at, in_callers_thread=True)
        queue = call.queue
        if queue.singly or queue.calls[0] is not call:
            self._repeat_releases(call)
        self._over(call)

    def unreachable(self, node: Node, calls: Sequence[Call], error: Exception) -> None:
        """Send calls again, if that may help; else fail them, and all that waits behind them."""
        for call in calls:
            if self._patience is not None:
                self.refused(node, call, error)
            else:
                behind, call.queue.gathered, call.queue.singly = call.queue.gathered, [], 0
                self._fail([*call.pending, *behind], error)
                self._over(call)

    def refused(self, node: Node, call: Call, error: Exception) -> None:
        """Send a call again, if that may help."""
        if isinstance(error, MovedError):
            self._slot_map.moved(error, node)
        elif not isinstance(error, ResponseError):
            self._is_answered = False
            self._receiver.messages_lost()  # the news that came with lost replies are lost
        self._put_off(call, error)

    def confirmed(self, question: Confirmation, replicas: int) -> None:
        """Hand out what replicas have; give back what they have not."""
        call, lines, grants, _ = question
        least = self._min_replicas
        if least is not None and replicas < least.least:
            releases = give_back(call.operations, lines, grants, self._receiver.key_of_request)
            unsafe = [call.pending[each] for each in grants.positions]
            fail(unsafe, lambda _: least.missed(replicas))
            # Before all that is asked from now on: a caller that was refused may ask again at once.
            call.queue.gathered[:0] = map(self._new_pending, releases)
        self.carried_out(call, lines)

    def _put_off(self, call: Call, error: Exception) -> None:
        """Send a call again after a while, or give it up."""
        call.form = None
        now = time.monotonic()
        if call.retry is None:
            call.retry = Retry(self._give_up_at(call))
        pause = call.retry.backoff_after(error, now)
        if pause is None:
            self._give_up(call, call.retry.reason(error))
            return
        if is_about_the_map(error) and (pause or self._slot_map.is_stale()):
            self._refresh_map()
        if pause:
            self._delayed[call] = self.loop.call_later(pause, self._send_again, call)
        else:
            self._delayed[call] = self.loop.call_soon(self._send_again, call)

    def _give_up_at(self, call: Call) -> float | None:
        if self._patience is None:
            return None
        return call.pending[0].at + self._receiver.refusals.patience(self._patience)

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

        For when an exception of others (a signal handler's, another thread's) interrupted what is
        called by the loop: it is the loop's to raise, but the callers must not wait for ever.
        What is in flight stands in a queue, whatever happened.
        """
        self._forget_sent()
        calls: list[Call] = []
        for tag, queue in list(self._queues.items()):
            if queue.calls:
                queue.forget_sent()
                calls += queue.calls
            elif queue.gathered:
                self._ready[tag] = queue
            elif queue is not self._only_queue:
                del self._queues[tag]
        self._receiver.messages_lost()
        if not self._closed:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)
            again = self.loop.call_soon(self._send_again, *calls)
            self._delayed = dict.fromkeys(calls, again)  # before those behind them
            if not self._is_watched:
                self._watch_from(time.monotonic())

    def _forget_sent(self) -> None:
        """Forget what is on its way, and when it was to be sent again; `_queues` has it all."""
        for connection in self._connections.values():
            connection.reset()
        for timer in self._delayed.values():
            if timer is not None:
                timer.cancel()
        self._delayed.clear()
        self._ready.clear()
        self._refresher.reset()

    def _send_now(self, calls: list[Call]) -> None:
        for push in list(map(self._send, calls)):
            if push is not None:
                push()

    def _give_up(self, call: Call, error: Exception) -> None:
        about_all = isinstance(error, ReadOnlyError | AuthenticationError)
        if isinstance(error, ResponseError) and not about_all and len(call.pending) > 1:
            # One that cannot be done must not take the others along.
            call.queue.gathered[:0] = call.pending
            call.queue.singly += len(call.pending)
        else:
            self._fail(call.pending, error)
        self._over(call)

    def _fail(self, asked: Sequence[Pending], error: Exception) -> None:
        where = self._where
        fail(asked, lambda operations: failure(error, where, operations))

    # -- the map ----------------------------------------------------------------------------------

    def _refresh_map(self) -> None:
        if not self._closed:
            try:
                self._refresher.begin()
            except RuntimeError as error:  # no thread can begin
                trouble = ConnectionError(f"cannot read which node has which slots: {error}")
                self.loop.call_soon(self._refreshed, trouble)

    def _refreshed_elsewhere(self, trouble: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._refreshed, trouble)

    def _refreshed(self, trouble: Exception | None) -> None:
        try:
            self._refreshed_now(trouble)
        except BaseException:
            self.interrupted()
            raise

    def _refreshed_now(self, trouble: Exception | None) -> None:
        calls = [call for call, timer in self._delayed.items() if timer is None]
        for call in calls:
            del self._delayed[call]
        if trouble is None:
            self._send_now(calls)
        else:
            for call in calls:
                self._put_off(call, trouble)
