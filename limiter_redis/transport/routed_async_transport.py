"""Calls of the script by an event loop, each to the node that owns its keys; see `AsyncWire`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ClusterDownError, MovedError, NoScriptError, ResponseError

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemThread, run_in_thread
from limiter_redis.cluster.redirects import MinReplicas, failure, give_back, is_about_the_map
from limiter_redis.cluster.slot_map import Node, Slots, tag_of_operation
from limiter_redis.connection.endpoints import CONNECT_PATIENCE, Place
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.script import Script
from limiter_redis.session.tracker import Hub
from limiter_redis.transport.node_connection import Call, Confirmation, Line
from limiter_redis.transport.pending import Asked, deliver, fail, new_asked
from limiter_redis.transport.routed_sync_transport import RoutedWire
from limiter_redis.transport.sync_transport import BATCH

CLOSING_PATIENCE = 5.0
"""Seconds that closing waits for what was asked before."""


class _Lane:
    """The operations of one tag.

    One call of a tag is on its way at a time: none overtakes another, whatever way it is sent.

    Attributes:
        gathered: what is asked meanwhile.
        call: the one on its way.
        singly: how many operations at the front travel alone, since one of them was refused.
    """

    __slots__ = ("call", "gathered", "singly")

    def __init__(self) -> None:
        self.gathered: list[Asked] = []
        self.call: Call | None = None
        self.singly = 0


class RoutedAsyncWire:
    """Calls of the nodes of a cluster, from one event loop, over one connection to each.

    Args:
        place: where they are.
        slots: who owns what.
        hub: who hears news.
        script: the script.
        commands: the way of plain commands, which are seldom: a thread's.
        min_replicas: how many replicas have to confirm a grant; None: it is not asked.
    """

    def __init__(
        self,
        place: Place,
        slots: Slots,
        hub: Hub,
        script: Script,
        commands: RoutedWire,
        *,
        min_replicas: MinReplicas | None = None,
    ) -> None:
        self._place = place
        self._slots = slots
        self._hub = hub
        self._encode = protocol.Encoder(script, hub.names, hub.process)
        self._commands = commands
        self._min_replicas = min_replicas
        self.loop = asyncio.get_running_loop()
        self._lines: dict[Node, Line] = {}
        self._lanes: dict[str, _Lane] = {}
        self._ready: dict[str, _Lane] = {}
        """Lanes with something to send and nothing on its way."""
        self._aside: dict[Call, asyncio.TimerHandle | None] = {}
        """Calls that are to be sent again: after a while, or (None) when the map is known."""
        self._flush_is_due = False
        self._learning = False
        self._lifetime = self._until_the_loop_ends()
        self._lives: asyncio.Task[None] | None = None
        self._closed = False

    def submit(
        self, operation: protocol.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply. See `AsyncWire.submit`."""
        asked = self._asked(operation, deadline)
        self._gather(tag_of_operation(self._hub.names, operation), [asked])
        return asked.future

    def _asked(self, operation: protocol.Operation, deadline: float | None = None) -> Asked:
        return new_asked(self.loop, operation, deadline, self._place.where)

    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        call = self._commands.command
        return await run_in_thread(lambda: call(*command, node=node))

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        return await run_in_thread(self._commands.nodes)

    async def aclose(self) -> None:
        """Close the connections; what was asked before is carried out first, in bounded time."""
        deadline = self.loop.time() + CLOSING_PATIENCE
        while futures := self._unanswered():
            left = deadline - self.loop.time()
            if left <= 0:
                break
            await asyncio.wait(futures, timeout=left)
        if self._lives is not None:
            await self._lives
        await self._lifetime.aclose()

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""
        self._closed = True
        for line in self._lines.values():
            line.abandon()
        self._commands.close()

    def _unanswered(self) -> list[asyncio.Future[str]]:
        lanes = list(self._lanes.values())
        asked = [each for lane in lanes for each in lane.gathered]
        asked += [each for lane in lanes if lane.call is not None for each in lane.call.asked]
        return [each.future for each in asked if not each.future.done()]

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # `asyncio.run` closes the generators that are not finished: so that a program that never
        # closes its limiter leaves no connection to a loop that is gone.
        try:
            yield
        finally:
            self._closed = True
            for timer in self._aside.values():
                if timer is not None:
                    timer.cancel()
            for line in self._lines.values():
                await line.aclose()
            self._commands.close()

    async def _live(self) -> None:
        await anext(self._lifetime)

    # -- sending ----------------------------------------------------------------------------------

    def _gather(self, tag: str, asked: list[Asked]) -> None:
        lane = self._lanes.get(tag)
        if lane is None:
            lane = self._lanes[tag] = _Lane()
        lane.gathered += asked
        if lane.call is None:
            self._ready[tag] = lane
            if not self._flush_is_due:
                if len(self._hub.live) > 1:
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
        give_up_at = time.monotonic() + self._place.timeout
        for tag, lane in ready.items():
            size = 1 if lane.singly else BATCH
            lane.singly = max(0, lane.singly - 1)
            lane.call = Call(tag, lane.gathered[:size], give_up_at)
            del lane.gathered[:size]
            calls.append(lane.call)
        self._send_now(calls)

    def _send(self, call: Call, touched: set[Line]) -> None:
        node = self._slots.node_of(call.tag)
        if node is not None:
            line = self._line(node)
            line.send(call)
            touched.add(line)
        elif self._slots.version == 0:
            self._aside[call] = None
            self._learn()
        else:
            self._put_off(call, ClusterDownError("no node owns the slot of " + call.tag))

    def _line(self, node: Node) -> Line:
        line = self._lines.get(node)
        if line is None:
            if self._lives is None:
                self._lives = self.loop.create_task(self._live())
            line = self._lines[node] = Line(
                node,
                self._place.async_client(node),
                self._encode,
                self,
                timeout=self._place.timeout,
                connect_timeout=min(self._place.timeout, CONNECT_PATIENCE),
                min_replicas=self._min_replicas,
                refusals=self._hub.refusals,
            )
        return line

    # -- answers ----------------------------------------------------------------------------------

    def heard(self, line: Line, call: Call, lines: list[str]) -> None:  # noqa: ARG002
        """Hand out replies and news."""
        deliver(call.asked, lines)
        if len(lines) > len(call.asked):
            news = lines[len(call.asked) :]
            self._hub.hear(news, call.sent_at, in_callers_thread=True)
        self._over(call)

    def refused(self, line: Line, call: Call, error: Exception) -> None:
        """Send a call again, if that may help."""
        if isinstance(error, MovedError):
            self._slots.moved(error, line.node)
        elif isinstance(error, NoScriptError) and not call.by_text:
            line.teach(call)
            return
        elif not isinstance(error, ResponseError):
            self._hub.silence()  # the news that came with lost replies are lost
        self._put_off(call, error)

    def confirmed(self, line: Line, question: Confirmation, replicas: int) -> None:
        """Hand out what replicas have; give back what they have not."""
        call, lines, grants, _ = question
        least = self._min_replicas
        if least is not None and replicas < least.least:
            operations = [asked.operation for asked in call.asked]
            releases = give_back(operations, lines, grants, self._hub)
            unsafe = [call.asked[place] for place in grants.places]
            fail(unsafe, lambda _: least.missed(replicas))
            # Before all that is asked from now on: who was refused may ask again at once.
            lane = self._lanes[call.tag]
            lane.gathered[:0] = [self._asked(each) for each in releases]
        self.heard(line, call, lines)

    def _put_off(self, call: Call, error: Exception) -> None:
        """Send a call again after a while, or give it up."""
        pause = call.tries.pause_after(error, time.monotonic())
        if pause is None:
            self._give_up(call, error)
            return
        if is_about_the_map(error) and (pause or self._slots.is_old()):
            self._learn()
        self._aside[call] = self.loop.call_later(pause, self._send_again, call)

    def _send_again(self, *calls: Call) -> None:
        try:
            for call in calls:
                self._aside.pop(call, None)
            self._send_now([*calls])
        except BaseException:
            self.interrupted()
            raise

    def interrupted(self) -> None:
        """Send anew, over other connections, all that may not have been answered.

        See `AsyncWire._recover`. What is on its way stands in a lane, whatever was interrupted.
        """
        for line in self._lines.values():
            line.reset()
        for timer in self._aside.values():
            if timer is not None:
                timer.cancel()
        self._aside.clear()
        self._ready.clear()
        calls: list[Call] = []
        for tag, lane in list(self._lanes.items()):
            if lane.call is not None:
                sent = {asked.future for asked in lane.call.asked}
                lane.gathered = [each for each in lane.gathered if each.future not in sent]
                calls.append(lane.call)
            elif lane.gathered:
                self._ready[tag] = lane
            else:
                del self._lanes[tag]
        self._learning = False
        self._hub.silence()
        if not self._closed:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)
            self.loop.call_soon(self._send_again, *calls)

    def _send_now(self, calls: list[Call]) -> None:
        touched: set[Line] = set()
        for call in calls:
            self._send(call, touched)
        for line in touched:
            line.push()

    def _give_up(self, call: Call, error: Exception) -> None:
        if isinstance(error, ResponseError) and len(call.asked) > 1:
            # One that cannot be done must not take the others along.
            lane = self._lanes[call.tag]
            lane.gathered[:0] = call.asked
            lane.singly += len(call.asked)
        else:
            where = self._place.where
            fail(call.asked, lambda operations: failure(error, where, operations))
        self._over(call)

    def _over(self, call: Call) -> None:
        """Let the next call of the same tag go."""
        lane = self._lanes[call.tag]
        lane.call = None
        if not lane.gathered:
            del self._lanes[call.tag]
            return
        self._ready[call.tag] = lane
        if not self._flush_is_due:
            # Behind those who were woken, for they ask for more.
            self.loop.call_soon(self._flush)
            self._flush_is_due = True

    # -- the map ----------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Have a thread of its own learn who owns what: the loop's are perhaps all busy."""
        if self._learning or self._closed:
            return
        self._learning = True
        seen = self._slots.version
        SystemThread(lambda: self._learn_now(seen), "limiter-slots").start()

    def _learn_now(self, seen: int) -> None:
        trouble: Exception | None = None
        try:
            self._slots.learn(seen)
        except Exception as error:  # noqa: BLE001
            trouble = error
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._learnt, trouble)

    def _learnt(self, trouble: Exception | None) -> None:
        try:
            self._learnt_now(trouble)
        except BaseException:
            self.interrupted()
            raise

    def _learnt_now(self, trouble: Exception | None) -> None:
        self._learning = False
        calls = [call for call, timer in self._aside.items() if timer is None]
        for call in calls:
            del self._aside[call]
        if trouble is None:
            self._send_now(calls)
        else:
            for call in calls:
                self._put_off(call, trouble)
