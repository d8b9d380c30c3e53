"""Which operations of an event loop travel together, and when: those that one turn asks for."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from limiter_core.errors import StoreError
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import SlotMap
from limiter_redis.connection.deadlines import NoAnswer
from limiter_redis.protocol import commands
from limiter_redis.protocol.errors import store_error
from limiter_redis.transport.calls import Call, TagQueue
from limiter_redis.transport.interfaces import Receiver
from limiter_redis.transport.pending import Pending, fail_overdue, new_pending

CLOSING_TIMEOUT = 5.0
"""Seconds that closing waits for what was asked before."""


class BatchingTransport(ABC):
    """Gathers operations, and makes calls of them, a queue for each tag.

    While calls of a tag are on their way, the next one gathers operations; so the number of round
    trips does not grow with the number of tasks. A call that has to be sent again is sent before
    those behind it: no release overtakes the acquire of its caller.

    Attributes:
        loop: the event loop.
    """

    def __init__(
        self,
        where: str,
        slot_map: SlotMap,
        receiver: Receiver,
        in_flight: int,
        timeout: float | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._closed = False
        self._lifetime = self._until_the_loop_ends()
        with suppress(StopIteration):  # its first step waits for nothing: it needs no task
            self._lifetime.__anext__().send(None)
        self._timeout = timeout
        self._watch: asyncio.TimerHandle | None = None
        self._is_watched = timeout is None
        self._where = where
        self._slot_map = slot_map
        self._receiver = receiver
        self._in_flight = in_flight
        self._only_queue = None if slot_map.has_tags else TagQueue("")
        self._queues = {} if self._only_queue is None else {"": self._only_queue}
        self._ready: dict[str, TagQueue] = {}
        """Queues that may have something to send."""
        self._delayed: dict[Call, asyncio.Handle | None] = {}
        """Calls that are to be sent again: after a while, or (None) when the map is known."""
        self._flush_is_due = False
        self._is_answered = False
        """Whether a call was carried out over the connections that are open."""

    def submit(
        self, operation: commands.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply.

        Args:
            operation: the operation.
            deadline: when the caller's patience ends, on the monotonic clock: then the future has
                a `StoreUnavailable`, and the operation may still be carried out.
        """
        asked = new_pending(self.loop, operation, deadline, self._out_of_time)
        queue = self._only_queue or self._queue_of(operation)
        queue.gathered.append(asked)
        if not self._is_watched:
            self._watch_from(asked.at)
        if len(queue.calls) < self._in_flight:
            self._ready[queue.tag] = queue
            if not self._flush_is_due:
                if queue.calls or not (self._is_answered and self._receiver.is_alone()):
                    self._plan_flush()
                else:
                    self._flush()
        return asked.future

    async def aclose(self) -> None:
        """Close the connections.

        What was asked before is carried out first, in bounded time: it may be a release that no
        caller waits for any more.
        """
        await self._lifetime.aclose()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # `asyncio.run` closes the generators that are not finished: so that a program that never
        # closes its limiter leaves no connection to a loop that is gone.
        try:
            yield
        finally:
            try:
                await asyncio.sleep(0)  # a stream that it closes in the same turn releases its slot
                await self._until_answered()
            finally:
                self._closed = True
                if self.loop.is_closed():  # meanwhile, after a Ctrl-C: nothing can be awaited
                    self.abandon()
                else:
                    await self._close()
                    while self._asked():  # by a stream that has cleaned up for longer
                        await self._until_answered()
                        await self._close()

    async def _until_answered(self) -> None:
        deadline = self.loop.time() + CLOSING_TIMEOUT
        while futures := [each.future for each in self._asked() if not each.future.done()]:
            left = deadline - self.loop.time()
            if left <= 0:
                break
            await asyncio.wait(futures, timeout=left)

    @abstractmethod
    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the connections; what waits for a reply fails."""

    def _new_pending(self, operation: commands.Operation) -> Pending:
        return new_pending(self.loop, operation, None, self._out_of_time)

    def _out_of_time(self, operation: commands.Operation) -> StoreError:
        """Return the error of an operation whose caller's patience has ended."""
        error: Exception = NoAnswer("no answer before the caller's patience ended")
        queue = self._only_queue or self._queues.get(self._slot_map.tag_of(operation))
        for call in [] if queue is None else queue.calls:
            if call.retry is not None:
                error = call.retry.reason(error)
        return store_error(error, self._where, [operation])

    def _queue_of(self, operation: commands.Operation) -> TagQueue:
        tag = self._slot_map.tag_of(operation)
        queue = self._queues.get(tag)
        if queue is None:
            queue = self._queues[tag] = TagQueue(tag)
        return queue

    def _asked(self) -> list[Pending]:
        queues = list(self._queues.values())
        pending = [each for queue in queues for each in queue.gathered]
        pending += [each for queue in queues for call in queue.calls for each in call.pending]
        return pending

    def _watch_from(self, asked_at: float) -> None:
        """Look at the clock when the time of what was asked first is over."""
        if self._timeout is not None:
            left = asked_at + self._timeout - time.monotonic()
            self._watch = self.loop.call_later(max(0.0, left), self._look_at_the_clock)
            self._is_watched = True

    def _look_at_the_clock(self) -> None:
        """Fail what was asked too long ago, wherever it is, and however often it was sent."""
        try:
            self._is_watched = False
            asked = self._asked()
            if self._timeout is not None:
                fail_overdue(asked, time.monotonic() - self._timeout, self._where)
            left = [each.at for each in asked if not each.future.done()]
            if left:
                self._watch_from(min(left))
        except BaseException:
            self.interrupted()
            raise

    @abstractmethod
    def _send(self, call: Call) -> Callable[[], object] | None:
        """Have a call sent; returns what has it on its way, with others of the same connection."""

    @abstractmethod
    def interrupted(self) -> None:
        """Send anew all that may not have been answered; an exception of others was raised."""

    def _plan_flush(self) -> None:
        """Send soon, with what others ask in this turn of the loop: those that a reply woke."""
        # And in the next one, if there are others: a caller that got a slot may release it there.
        flush = self._flush if self._receiver.is_alone() else self._flush_in_next_turn
        self.loop.call_soon(flush)
        self._flush_is_due = True  # last: if the lines before are interrupted, it is not

    def _flush_in_next_turn(self) -> None:
        try:
            self.loop.call_soon(self._flush)
        except BaseException:
            self.interrupted()
            raise

    def _flush(self) -> None:
        try:
            self._flush_is_due = False
            ready, self._ready = self._ready, {}
            # One at first: it finds out whether there is a server, and how the script is called
            # there.
            most = self._in_flight if self._is_answered else 1
            pushes: list[Callable[[], object] | None] = []
            for queue in ready.values():
                while queue.gathered and (room := most - len(queue.calls)) > 0:
                    if self._delayed and self._has_delayed(queue):
                        break
                    # In all calls that have room: so the replies of one are read while the next is
                    # done.
                    push = self._send(queue.next_call(room))
                    if push is not None and queue is self._only_queue:
                        push()  # the server begins with it while the next one is written
                    else:
                        pushes.append(push)
            for push in pushes:
                if push is not None:
                    push()  # all that was put there; it does nothing the second time
        except BaseException:
            self.interrupted()
            raise

    def _has_delayed(self, queue: TagQueue) -> bool:
        """Whether a call is to be sent again before any other of its tag."""
        return any(call in self._delayed for call in queue.calls)

    def _repeat_releases(self, call: Call) -> None:
        """Have releases follow the acquires that they overtook.

        A call before this one came back to be sent again, while this one was done.
        """
        if self._in_flight > 1:
            releases = filter(commands.is_release, call.operations)
            call.queue.gathered += map(self._new_pending, releases)

    def _over(self, call: Call) -> None:
        """Let the next call of the same tag go."""
        queue = call.queue
        queue.calls.remove(call)
        if queue.gathered:
            self._ready[queue.tag] = queue
            if not self._flush_is_due:
                self._plan_flush()  # behind the callers that were woken, for they ask for more
        elif not queue.calls and queue is not self._only_queue:
            del self._queues[queue.tag]
