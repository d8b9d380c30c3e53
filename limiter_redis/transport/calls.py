"""Calls of an event loop: operations of one tag that travel together, and those behind them."""

from __future__ import annotations

from typing import NamedTuple

from limiter_redis.cluster.redirects import Retry
from limiter_redis.cluster.replicas import Grants
from limiter_redis.protocol.commands import BATCH
from limiter_redis.transport.invocation import ScriptCall
from limiter_redis.transport.pending import Pending

WORTH_SPLITTING = 16
"""Operations that are worth a call of their own."""


class TagQueue:
    """The operations of one tag.

    Attributes:
        tag: of all their keys.
        gathered: what is not sent yet.
        calls: those on their way, the oldest first.
        singly: how many operations at the front travel alone, since one of them was refused.
    """

    __slots__ = ("calls", "gathered", "singly", "tag")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.gathered: list[Pending] = []
        self.calls: list[Call] = []
        self.singly = 0

    def next_call(self, room: int) -> Call:
        """Return the next call, one of so many that have room: so each has its part to do."""
        size = len(self.gathered)
        if size > WORTH_SPLITTING:
            size = min(BATCH, max(WORTH_SPLITTING, -(-size // room)))
        if self.singly:
            self.singly -= 1
            size = 1
        call = Call(self, self.gathered[:size])
        # First: what is interrupted amid the two is in one list too many, not in none.
        self.calls.append(call)
        del self.gathered[:size]
        return call

    def clear(self) -> None:
        """Forget all operations."""
        self.gathered.clear()
        self.calls.clear()
        self.singly = 0

    def forget_sent(self) -> None:
        """Leave in `gathered` only what is in no call, after an interruption."""
        sent = {asked.future for call in self.calls for asked in call.pending}
        self.gathered = [asked for asked in self.gathered if asked.future not in sent]


class Call(ScriptCall):
    """Operations of one tag that travel together.

    Attributes:
        queue: of their tag.
        pending: the operations, and the futures of their replies.
        operations: those alone.
        retry: how often it was sent, from the first failure on.
        sent_at: when it was sent.
    """

    __slots__ = ("operations", "pending", "queue", "retry", "sent_at")

    def __init__(self, queue: TagQueue, asked: list[Pending]) -> None:
        self.form = None  # all else of a `ScriptCall` is there once it is encoded
        self.queue = queue
        self.pending = asked
        self.operations = [each.operation for each in asked]
        self.retry: Retry | None = None
        self.sent_at = 0.0


class Confirmation(NamedTuple):
    """A question on its way: how many replicas have what a call was granted."""

    call: Call
    lines: list[str]
    grants: Grants
    sent_at: float

    @property
    def command_name(self) -> str:
        """The name of its command."""
        return "WAIT"
