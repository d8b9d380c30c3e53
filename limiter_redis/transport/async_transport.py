"""Calls of the script by an event loop: what is asked in one turn travels in one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import (
    AuthenticationError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from limiter_core.system_clock import system_clock as time
from limiter_redis.connection.deadlines import NoAnswer, or_no_answer
from limiter_redis.connection.nodes import ONLY_NODE, Node
from limiter_redis.connection.stream import Reply, Stream, abandon_pool
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.commands import BATCH
from limiter_redis.protocol.errors import Unreadable, is_driver_error, store_error
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver
from limiter_redis.transport.loop_transport import LoopTransport
from limiter_redis.transport.pending import Batch, Pending, deliver, fail_overdue, new_pending

IN_FLIGHT = 2
"""Calls that may be on their way at once: while the server does one, the next is written."""

MOMENT = 0.01
"""Seconds between two looks at the clock, at the least."""

WORTH_SPLITTING = 16
"""Operations that are worth a call of their own."""


class AsyncTransport(LoopTransport):
    """Calls of one server, from one event loop, over one connection.

    While calls are on their way the next one gathers operations; so the number of connections and
    of round trips does not grow with the number of tasks. Replies come in the order of the calls,
    and a call that has to be repeated is repeated in that order, too: no release overtakes
    the acquire of its caller.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        where: str,
        script: Script,
        receiver: Receiver,
        *,
        timeout: float,
    ) -> None:
        super().__init__()
        self._client: Any = client
        self._where = where
        self._receiver = receiver
        self._encode = commands.Encoder(script, receiver.keyspace, receiver.process)
        self._invocation = receiver.invocations.at(ONLY_NODE)
        self._timeout = timeout
        self._stream: Stream | None = None
        self._opening: asyncio.Task[None] | None = None
        self._gathered: list[Pending] = []
        self._flush_is_due = False
        self._in_flight: deque[Batch] = deque()
        self._receiving: Batch | None = None
        """The call whose reply is being handed out."""
        self._to_resend: list[Batch] = []
        """Calls that are to be sent anew before any other."""
        self._to_repeat: list[Batch] = []
        """Calls to be sent once more, when all that were in flight with them have their replies."""
        self._watch: asyncio.TimerHandle | None = None

    def submit(
        self, operation: commands.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply."""
        asked = new_pending(self.loop, operation, deadline, self._where)
        self._gathered.append(asked)
        if not self._flush_is_due:
            if self._in_flight or self._stream is None or not self._receiver.is_alone():
                self._plan_flush()
            else:
                self._flush()
        return asked.future

    async def nodes(self) -> Sequence[Node]:
        """Return the one server."""
        return [ONLY_NODE]

    async def command(self, *command: Any, node: Node | None = None) -> Any:  # noqa: ARG002
        """Carry out one plain command, beside the operations."""
        await self._begin_lifetime()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.execute_command(*command)
        except Exception as error:
            if is_driver_error(error):
                raise store_error(error, self._where) from error
            raise

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""
        self._closed = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
        abandon_pool(self._client)

    def _asked(self) -> list[asyncio.Future[str]]:
        calls = self._unanswered_calls()
        pending = [*self._gathered, *(each for call in calls for each in call.pending)]
        return [each.future for each in pending]

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            await asyncio.sleep(0)  # the loop closes the socket in its next turn
        await self._client.aclose()

    # -- sending ----------------------------------------------------------------------------------

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
            self._recover()
            raise

    def _flush(self) -> None:
        """Send what was gathered, as far as there is room in flight."""
        try:
            self._flush_now()
        except BaseException:
            self._recover()
            raise

    def _flush_now(self) -> None:
        self._flush_is_due = False
        if self._stream is None:
            if self._opening is None:
                self._opening = self.loop.create_task(self._open())
                self._opening.add_done_callback(self._opened)
            if self._watch is None:
                self._watch = self.loop.call_later(self._timeout, self._look_at_the_clock)
            return
        while self._to_resend and len(self._in_flight) < IN_FLIGHT:
            # Sent first: what is interrupted amid the two is in one list too many, not in none.
            self._send(self._stream, self._to_resend[0])
            del self._to_resend[0]
        while self._gathered and len(self._in_flight) < IN_FLIGHT and not self._to_repeat:
            # In all calls that have room: so the replies of one are read while the next is done.
            share = -(-len(self._gathered) // (IN_FLIGHT - len(self._in_flight)))
            size = min(BATCH, max(WORTH_SPLITTING, share))
            self._send(self._stream, Batch(self._gathered[:size]))
            del self._gathered[:size]

    def _send(self, stream: Stream, call: Batch) -> None:
        operations = [asked.operation for asked in call.pending]
        stream.write(call.encoded(self._encode, operations, self._invocation))
        call.sent_at = time.monotonic()
        self._in_flight.append(call)
        if self._watch is None:
            self._watch = self.loop.call_later(self._timeout, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        """Fail what was asked too long ago, wherever it is."""
        try:
            self._look_now()
        except BaseException:
            self._recover()
            raise

    def _look_now(self) -> None:
        self._watch = None
        now = time.monotonic()
        batches = [call.pending for call in self._unanswered_calls()]
        batches.append(self._gathered)
        for asked in batches:
            fail_overdue(asked, now - self._timeout, self._where)
        if self._in_flight and self._stream is not None:
            if self._in_flight[0].sent_at + self._timeout <= now:
                # Whatever it would still say is not the next one's answer.
                self._stream.fail(NoAnswer("Timeout reading from the server"))
        if self._watch is not None:  # what is sent anew does not start its time again
            self._watch.cancel()
            self._watch = None
        oldest = [call.sent_at for call in self._in_flight]
        oldest += [each.at for asked in batches for each in asked if not each.future.done()]
        if oldest:
            left = max(MOMENT, min(oldest) + self._timeout - now)
            self._watch = self.loop.call_later(left, self._look_at_the_clock)

    def _unanswered_calls(self) -> list[Batch]:
        return [*self._in_flight, *self._to_resend, *self._to_repeat]

    async def _open(self) -> None:
        stream = Stream(self._receive, self._ended)
        try:
            # Connecting counts too: a server may take the connection, and say nothing.
            self._receiver.refusals.check()
            with self._receiver.refusals.watched():
                async with asyncio.timeout(self._timeout):
                    await self._begin_lifetime()
                    await stream.open(self._client)
        except Exception as error:  # noqa: BLE001
            # Of any kind: a credential provider, for one, may raise what it likes.
            error = or_no_answer(error)
            for call in (*self._to_resend, Batch(self._gathered)):
                call.fail(error, self._where)
            self._to_resend, self._gathered = [], []
        else:
            self._stream = stream

    def _opened(self, opening: asyncio.Task[None]) -> None:
        # Cancelled halfway (the loop ends): it is opened anew for what was asked; also if no
        # caller waits for that any more, for it may be a release.
        if self._opening is opening:
            self._opening = None
        if (self._to_resend or self._gathered) and not self._closed:
            self._flush()

    # -- receiving --------------------------------------------------------------------------------

    def _receive(self, reply: Reply) -> None:
        try:
            self._receive_now(reply)
        except BaseException:
            self._recover()
            raise

    def _receive_now(self, reply: Reply) -> None:
        if not self._in_flight:
            if self._stream is not None:
                self._stream.fail(Unreadable("the server sent a reply that nobody asked for"))
            return
        call = self._receiving = self._in_flight[0]
        if call.loads and not isinstance(reply, Unreadable):
            call.loaded(reply, self._invocation)
            self._receiving = None
            return
        self._in_flight.popleft()
        lines: list[str] | None = None
        if not isinstance(reply, RedisError):
            try:
                lines = replies.lines_of(reply, len(call.pending))
            except Unreadable as error:
                reply = error
        if lines is not None:
            deliver(call.pending, lines)
            if len(lines) > len(call.pending):
                news = lines[len(call.pending) :]
                self._receiver.receive(news, call.sent_at, in_callers_thread=True)
            if self._to_repeat:
                self._repeat_releases(call)
        elif call.change_form(reply, self._invocation, [asked.operation for asked in call.pending]):
            self._to_repeat.append(call)
        elif isinstance(reply, ReadOnlyError | AuthenticationError) and self._stream is not None:
            call.fail(reply, self._where)
            self._receiver.refusals.note(reply)
            # It may be another server that is written to by now, or another password.
            self._stream.fail(reply)
        elif isinstance(reply, ResponseError) and len(call.pending) > 1:
            # One that cannot be done must not take the others along.
            self._to_repeat += [Batch([asked]) for asked in call.pending]
        else:
            call.fail(reply, self._where)
        if self._to_repeat and not self._in_flight and self._stream is not None:
            while self._to_repeat:
                self._send(self._stream, self._to_repeat[0])
                del self._to_repeat[0]
        elif (self._gathered or self._to_resend) and not self._flush_is_due:
            self._plan_flush()
        self._receiving = None

    def _repeat_releases(self, call: Batch) -> None:
        """Have releases follow the acquires that they overtook.

        A call before this one came back to be sent again, while this one was done.
        """
        releases = [
            asked.operation for asked in call.pending if commands.is_release(asked.operation)
        ]
        if releases:
            asked = [new_pending(self.loop, each, None, self._where) for each in releases]
            self._to_repeat.append(Batch(asked))

    def _ended(self, stream: Stream, error: Exception) -> None:
        """Repeat once what was not answered, over the next connection."""
        # A connection that lay idle may be dead. All operations may be repeated (S1), but the
        # news that came with lost replies are lost.
        if stream is not self._stream:
            return
        try:
            self._end_now(error)
        except BaseException:
            self._recover()
            raise

    def _end_now(self, error: Exception) -> None:
        self._stream = None
        self._invocation.forget()
        calls = [*self._to_repeat, *self._in_flight]
        for call in calls:
            call.form = None
            if call.again:
                call.fail(error, self._where)
            else:
                # What ended it was another's reply: that one has it, so this has an end.
                call.again = not isinstance(error, Unreadable)
                self._to_resend.append(call)
        self._to_repeat.clear()
        self._in_flight.clear()
        if calls:
            self._receiver.messages_lost()  # the news that came with lost replies are lost
        if self._to_resend or self._gathered:
            self._flush()

    def _recover(self) -> None:
        """Send anew, over another connection, all that may not have been answered.

        For when an exception of others (a signal handler's, another thread's) interrupted what is
        called by the loop: it is the loop's to raise, but the callers must not wait for ever.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._receiving, current = None, self._receiving
        first: list[Batch] = [] if current is None else [current]
        calls = list(dict.fromkeys([*first, *self._to_repeat, *self._in_flight, *self._to_resend]))
        sent = {asked.future for call in calls for asked in call.pending}
        gathered = [asked for asked in self._gathered if asked.future not in sent]
        self._to_resend, self._gathered, self._to_repeat = calls, gathered, []
        self._in_flight.clear()
        self._flush_is_due = False
        self._receiver.messages_lost()
        if (calls or gathered) and not self._closed:
            self._plan_flush()
