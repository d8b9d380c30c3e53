"""What is on its way between the process and the server of the simulation."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from limiter_core.requests import Request
from limiter_redis.session.entries import Entry


class Labels:
    """Names what is sent: "ask 0", then "ask 0 #2", and so on."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()

    def next(self, what: str, caller: int) -> str:
        label = f"{what} {caller}"
        self._used[label] += 1
        return label if self._used[label] == 1 else f"{label} #{self._used[label]}"


class Message(NamedTuple):
    """What is on its way: to the server, or (with a reply) back.

    Attributes:
        label: tells it apart.
        what: "ask", "renew", "reclaim" or "release"; "stray": an ask whose reply nobody reads.
        caller: the number of the caller that it is about.
        request: that is asked, or released.
        sent_at: when it was sent, on the local clock.
        entry: that is renewed or released.
        by_caller: whether a caller waits for the reply.
        reply: what the server said, None before.
        hold_left: with a grant: how long it may be held, if that is bounded.
    """

    label: str
    what: str
    caller: int
    request: Request
    sent_at: float
    entry: Entry | None
    by_caller: bool
    reply: Any = None
    hold_left: float | None = None


class Network:
    """The messages that are on their way.

    Attributes:
        messages: the oldest first.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._labels = Labels()

    def send(
        self,
        what: str,
        caller: int,
        request: Request,
        now: float,
        entry: Entry | None,
        *,
        by_caller: bool,
    ) -> None:
        label = self._labels.next(what, caller)
        self.messages.append(Message(label, what, caller, request, now, entry, by_caller))

    def take(self, label: str) -> Message:
        """Remove a message, and return it."""
        (message,) = (each for each in self.messages if each.label == label)
        self.messages.remove(message)
        return message

    def replace(self, message: Message, by: Message | None) -> None:
        """Put another in the place of a message, or none."""
        at = self.messages.index(message)
        self.messages[at : at + 1] = [] if by is None else [by]

    def read_no_reply(self, caller: int) -> None:
        """Have a caller read no reply to an ask any more. What was sent may arrive."""
        for message in [*self.messages]:
            if message.caller == caller and message.by_caller and message.what == "ask":
                stray = message._replace(by_caller=False, what="stray")
                self.replace(message, stray if message.reply is None else None)
