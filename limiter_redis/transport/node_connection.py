"""A connection to one node of a cluster: one connection of an event loop, and the calls on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    ReadOnlyError,
    RedisError,
)

from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.replicas import MinReplicas, grants_of
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.deadlines import NoAnswer, or_no_answer
from limiter_redis.connection.first_commands import EndedByServer, ended_after
from limiter_redis.connection.nodes import Node
from limiter_redis.connection.stream import Reply, Stream, abandon_pool
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.errors import Unreadable, is_driver_error, store_error
from limiter_redis.protocol.forms import Form
from limiter_redis.transport.calls import Call, Confirmation
from limiter_redis.transport.invocation import Invocation

IN_FLIGHT = 512
"""Calls that may be on their way to a node at once. Each has another tag, so none orders others."""


RESPONSES = (Unreadable, ReadOnlyError, AuthenticationError)


class Answering(Protocol):
    """What deals with the outcome of calls."""

    def carried_out(self, call: Call, lines: list[str]) -> None:
        """A call was carried out."""

    def refused(self, node: Node, call: Call, error: Exception) -> None:
        """A call was not carried out; or, if the connection ended, perhaps it was."""

    def unreachable(self, node: Node, calls: Sequence[Call], error: Exception) -> None:
        """The node could not be connected to: calls were not sent."""

    def confirmed(self, question: Confirmation, replicas: int) -> None:
        """So many replicas have what was granted."""

    def interrupted(self) -> None:
        """An exception of others was raised while the state changed, and is raised on."""


class NodeConnection:
    """One connection to one node, opened when it is needed."""

    def __init__(
        self,
        node: Node,
        client: redis.asyncio.Redis,
        encode: commands.Encoder,
        invocation: Invocation,
        answering: Answering,
        *,
        timeout: float,
        connect_timeout: float,
        min_replicas: MinReplicas | None,
        refusals: Refusals,
        where: str,
    ) -> None:
        self._refusals = refusals
        self._node = node
        self._client: Any = client
        self._encode = encode
        self._invocation = invocation
        self._answering = answering
        self._where = where
        self._timeout = timeout + (0.0 if min_replicas is None else min_replicas.timeout)
        self._connect_timeout = connect_timeout
        self._min_replicas = min_replicas
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: deque[Call] = deque()
        self._in_flight: deque[Call | Confirmation] = deque()
        self._out: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        self._sends_script: Call | None = None
        """The last call that took the script along."""

    def send(self, call: Call) -> None:
        """Send a call with the next `push`, when the connection is there and has room."""
        if not self._in_flight and self._stream is not None and self._stream.is_outdated:
            self.fail(ConnectionError("another master was promoted"))  # nobody waits for a reply
        if self._stream is not None and len(self._in_flight) < IN_FLIGHT:
            self._out.append(call.encoded(self._encode, call.operations, self._invocation))
            call.sent_at = time.monotonic()
            self._in_flight.append(call)
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout, self._look_at_the_clock)
            return
        self._waiting.append(call)
        # One that is over may not have been noted: a signal handler raised an exception.
        if self._stream is None and (self._opening is None or self._opening.done()):
            self._begin_to_open()

    def reset(self) -> None:
        """Forget all calls, and the connection with what it would say to them."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._out.clear()
        self._in_flight.clear()
        self._waiting.clear()

    def push(self) -> None:
        """Have on its way what was sent: all of a turn together, each write costs a system call."""
        out = self._out
        if out:
            if self._stream is not None:
                self._stream.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _send_in_other_form(self, call: Call) -> None:
        """Send a call again to a node that did not know the script, and does after the first."""
        if call.form in (Form.LOADING, Form.TEXT):
            if self._sends_script in (*self._waiting, *self._in_flight):
                call.form = Form.FUNCTION if call.form is Form.LOADING else Form.DIGEST
            else:
                self._sends_script = call
        self.send(call)
        self.push()

    def fail(self, error: Exception) -> None:
        """End the connection, if there is one: the next call opens another."""
        if self._stream is not None:
            self._stream.fail(error)

    async def command(self, *command: Any) -> Any:
        """Carry out one plain command, beside the calls."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.execute_command(*command)
        except Exception as error:
            if is_driver_error(error):
                said = or_no_answer(error, "reading from the server")
                raise store_error(said, self._where) from error
            raise

    async def aclose(self) -> None:
        """Close the connection; no call is reported."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        await asyncio.sleep(0)  # the loop closes the socket in its next turn
        await self._client.aclose()

    def abandon(self) -> None:
        """Close the connection of a loop that was closed before; from any thread."""
        self._closed = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
        abandon_pool(self._client)

    def _look_at_the_clock(self) -> None:
        try:
            self._look_now()
        except BaseException:
            self._answering.interrupted()
            raise

    def _look_now(self) -> None:
        self._watch = None
        if not self._in_flight:
            return
        left = self._in_flight[0].sent_at + self._timeout - time.monotonic()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look_at_the_clock)
        else:
            # Whatever it would still say is not the next one's answer.
            self.fail(NoAnswer("Timeout reading from the server"))

    def _begin_to_open(self) -> None:
        opening = self._loop.create_task(self._open())
        opening.add_done_callback(self._opened)
        self._opening = opening  # last: one that nobody would note is not waited for

    async def _open(self) -> None:
        stream = Stream(self._receive, self._ended)
        try:
            # Connecting counts too: a server may take the connection, and say nothing.
            self._refusals.check()
            with self._refusals.watched():
                async with asyncio.timeout(self._connect_timeout):
                    await stream.open(self._client)
        except Exception as error:  # noqa: BLE001
            # Of any kind: a credential provider, for one, may raise what it likes.
            if self._loop.is_closed():
                return  # it was closed meanwhile, and nobody is there any more
            error = or_no_answer(error)
            calls = [*self._waiting]
            self._waiting.clear()
            self._answering.unreachable(self._node, calls, error)
        else:
            if self._stream is not None:  # of an opening that was interrupted as it began
                self._stream.close()
            self._stream = stream
            self._opened(self._opening)  # and by its task: one of the two may be interrupted

    def _opened(self, opening: asyncio.Task[None] | None) -> None:
        try:
            if self._opening is opening:
                self._opening = None
            if self._stream is not None:
                self._flush()
            elif self._waiting and not self._closed and self._opening is None:
                # Cancelled halfway, since the loop ends: it is opened anew for what was asked; also
                # if no caller waits for that any more: it may be a release.
                self._begin_to_open()
        except BaseException:
            self._answering.interrupted()
            raise

    def _flush(self) -> None:
        while self._waiting and self._stream is not None and len(self._in_flight) < IN_FLIGHT:
            self.send(self._waiting.popleft())
        self.push()

    def _receive(self, reply: Reply) -> None:
        try:
            if not self._in_flight:
                self.fail(Unreadable("the server sent a reply that nobody asked for"))
                return
            expected = self._in_flight[0]
            if isinstance(expected, Confirmation):
                self._in_flight.popleft()
                self._answering.confirmed(expected, reply if isinstance(reply, int) else 0)
                return
            if expected.loads and not isinstance(reply, Unreadable):
                expected.loaded(reply, self._invocation)
                return
            self._in_flight.popleft()
            lines: list[str] | None = None
            if not isinstance(reply, RedisError):
                try:
                    lines = replies.lines_of(reply, len(expected.pending))
                except Unreadable as error:
                    reply = error
            if lines is not None:
                if self._min_replicas is None or not self._ask_replicas(expected, lines):
                    self._answering.carried_out(expected, lines)
            elif expected.change_form(reply, self._invocation, expected.operations):
                self._send_in_other_form(expected)
            else:
                self._answering.refused(self._node, expected, reply)
                if isinstance(reply, ReadOnlyError | AuthenticationError):
                    # It may be another server that is written to by now, or another password.
                    self._refusals.note(reply)
                    self.fail(reply)
            if self._waiting:
                self._flush()
        except BaseException:
            self._answering.interrupted()
            raise

    def _ask_replicas(self, call: Call, lines: list[str]) -> bool:
        """Have replicas confirm a call's grants, if there are any."""
        grants = grants_of(call.operations, lines)
        if grants is None or self._stream is None or self._min_replicas is None:
            return False
        self.push()  # what was put there before has its place in line
        self._stream.write(commands.packed_command(*self._min_replicas.command()))
        self._in_flight.append(Confirmation(call, lines, grants, time.monotonic()))
        return True

    def _ended(self, stream: Stream, error: Exception) -> None:
        if stream is not self._stream:
            return
        try:
            self._end_now(error)
        except BaseException:
            self._answering.interrupted()
            raise

    def _end_now(self, error: Exception) -> None:
        self._stream = None
        self._invocation.forget()
        self._out.clear()
        in_flight, self._in_flight = self._in_flight, deque()
        waiting, self._waiting = self._waiting, deque()
        if isinstance(error, EndedByServer) and in_flight:  # it was the turn of the first
            error = ended_after(in_flight[0].command_name)
        for expected in (*in_flight, *waiting):
            if isinstance(expected, Confirmation):
                self._answering.confirmed(expected, 0)
            else:
                self._answering.refused(self._node, expected, self._ended_by(error, expected))

    def _ended_by(self, error: Exception, call: Call) -> Exception:
        # A reply that cannot be read, or that refuses, or that did not come, was another's: that
        # one has it.
        late = call.sent_at + self._timeout <= time.monotonic()
        others = isinstance(error, RESPONSES) or (isinstance(error, NoAnswer) and not late)
        return ConnectionError(str(error)) if others else error
