"""Calls of the script by threads: one round trip each, to the node that owns the keys.

One server is a cluster of one node. The slot map says what travels together (all, or what has one
tag), and the patience says how long a call is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ClusterDownError, ResponseError

from limiter_core.errors import StoreError
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.redirects import Retry, failure, is_about_the_map, passes
from limiter_redis.cluster.replicas import MinReplicas
from limiter_redis.cluster.slot_map import SlotMap
from limiter_redis.connection.deadlines import bounded
from limiter_redis.connection.exchange import ConnectionPool
from limiter_redis.connection.nodes import ONLY_NODE, Node
from limiter_redis.protocol import commands
from limiter_redis.protocol.errors import is_driver_error, store_error
from limiter_redis.protocol.forms import Form
from limiter_redis.protocol.script import Script
from limiter_redis.transport.interfaces import Receiver
from limiter_redis.transport.node_exchange import NodeExchange, ThreadCall


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
        self._patience = patience
        self._min_replicas = min_replicas
        self._exchange = NodeExchange(
            *(slot_map, receiver, script, new_pool), timeout=timeout, min_replicas=min_replicas
        )
        self._timeout = self._exchange.timeout
        self._map_version = slot_map.version

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
        if self._patience is None:
            return self._call_one_server(operations, bounded(deadline, sent_at, self._timeout))
        calls = self._carry_out(operations, deadline, sent_at)
        lines, news = self._replies(calls, len(operations))
        for line in lines:
            if isinstance(line, StoreError):
                self._receiver.receive(news, sent_at, in_callers_thread=True)
                raise line
        return [line for line in lines if isinstance(line, str)] + news

    def _call_one_server(
        self, operations: Sequence[commands.Operation], deadline: float
    ) -> list[str]:
        # The hot path of threads: it looks nothing up.
        call = ThreadCall("", deadline)
        call.operations = [*operations]
        try:
            self._exchange.one(ONLY_NODE, call, deadline)
        except BaseException as error:
            if not self._is_driver_error(error):
                raise
            call.reply = error
        if isinstance(call.reply, Exception):
            self._run(self._to_repeat([call], 0, deadline, deadline), deadline)
            if isinstance(call.reply, StoreError):
                raise call.reply
        reply: Any = call.reply
        lines: list[str] = reply
        return lines

    def _is_driver_error(self, error: BaseException) -> bool:
        """Whether a call failed; else the error is its caller's, and news may be lost."""
        if isinstance(error, Exception) and is_driver_error(error):
            return True
        self._receiver.messages_lost()
        return False

    def call_each(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        now = time.monotonic()
        # One bound for all, also for those that are asked for alone.
        patience = self._timeout if self._patience is None else self._patience
        bound = bounded(deadline, now, patience)
        calls = self._carry_out(operations, deadline, now)
        lines, news = self._replies(calls, len(operations))
        for call in calls:
            error = call.reply
            cause = error.__cause__ if isinstance(error, StoreError) else None
            # One that cannot be done must not take the others along. But what a node says of
            # itself, or of a slot, it would say of each.
            if isinstance(cause, ResponseError) and not passes(cause):
                for position in call.positions if len(call.positions) > 1 else ():
                    (lines[position],), more_news = self.call_each([operations[position]], bound)
                    news += more_news
        return lines, news

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        now = time.monotonic()
        deadline = bounded(None, now, self._timeout) if self._patience is None else None
        call = ThreadCall(node or str(command[1 % len(command)]), deadline, command)
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
        """Close the connections, unless they are the user's."""
        self._exchange.close()

    # -- calls ------------------------------------------------------------------------------------

    def _carry_out(
        self, operations: Sequence[commands.Operation], deadline: float | None, now: float
    ) -> list[ThreadCall]:
        """Have operations carried out, in a call for each tag."""
        if self._patience is None:
            deadline = bounded(deadline, now, self._timeout)
        tag_of = self._slot_map.tag_of
        calls: dict[str, ThreadCall] = {}
        for position, operation in enumerate(operations):
            tag = tag_of(operation)
            if tag not in calls:
                calls[tag] = ThreadCall(tag, deadline)
            calls[tag].operations.append(operation)
            calls[tag].positions.append(position)
        found = [*calls.values()]
        self._run(found, now)
        return found

    def _replies(
        self, calls: list[ThreadCall], count: int
    ) -> tuple[list[str | StoreError], list[str]]:
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

    def _run(self, calls: list[ThreadCall], began_at: float) -> None:
        """Have calls carried out, or find out why that cannot be."""
        patience = self._timeout if self._patience is None else self._patience
        until = max((bounded(call.deadline, began_at, patience) for call in calls), default=0.0)
        while calls:
            seen = self._slot_map.version
            self._send(calls, until)
            calls = [call for call in calls if isinstance(call.reply, Exception)]
            if calls:
                calls = self._to_repeat(calls, seen, began_at, until)

    def _to_repeat(
        self, failed: list[ThreadCall], seen: int, began_at: float, until: float
    ) -> list[ThreadCall]:
        """Return the calls that are to be sent again, after the pause that it takes."""
        again: list[ThreadCall] = []
        pause, map_is_wrong, script_sent = 0.0, False, False
        for call in failed:
            error = call.reply
            if isinstance(error, StoreError):
                continue  # not confirmed by replicas
            if not isinstance(error, ResponseError):
                self._receiver.messages_lost()
            if call.refused:
                if call.form in (Form.LOADING, Form.TEXT):
                    # One takes the script along, the others come behind it.
                    call.form = call.form if not script_sent else None
                    script_sent = True
                again.append(call)
                continue
            call.form = None
            now = time.monotonic()
            if call.retry is None:
                call.retry = Retry(self._give_up_at(call, began_at))
            wait = call.retry.backoff_after(error, now)
            if wait is None or (call.deadline is not None and now + wait >= call.deadline):
                call.reply = failure(call.retry.reason(error), self._where, call.operations)
                continue
            pause = max(pause, wait)
            again.append(call)
            map_is_wrong |= is_about_the_map(error) and (wait > 0 or self._slot_map.is_stale())
        if map_is_wrong:
            self._refresh(seen, until)
        if pause:
            time.sleep(pause)
        return again

    def _give_up_at(self, call: ThreadCall, began_at: float) -> float | None:
        if self._patience is None:
            return None
        patience = self._receiver.refusals.patience(self._patience)
        return bounded(call.deadline, began_at, patience)

    def _refresh(self, seen: int, deadline: float) -> Exception | None:
        try:
            self._slot_map.refresh_in_time(seen, deadline)
        except Exception as error:
            if is_driver_error(error):
                return error
            raise
        return None

    def _send(self, calls: list[ThreadCall], until: float) -> None:
        error = self._refresh(0, until) if self._slot_map.version == 0 else None
        if self._slot_map.version != self._map_version:
            self._map_version = self._slot_map.version
            self._exchange.keep(self._slot_map.masters())
        by_node: dict[Node, list[ThreadCall]] = {}
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
                if not self._is_driver_error(trouble):
                    raise
                for call in some:
                    if call.reply is None or self._min_replicas is not None:
                        call.reply = trouble
