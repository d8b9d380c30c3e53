"""The leases and tickets of this process: states, events, entries, and calls of listeners."""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

from limiter_core.requests import Answer, Listener, Loss, Request

NOW = -math.inf
"""In place of a time: as soon as may be, whatever was planned before."""


class State(enum.IntEnum):
    """Where a request stands."""

    ASKED = 0
    """The store was asked, and its answer was not read yet."""
    WAITING = 1
    """It has a ticket; or its caller was notified of a failure, and asks again."""
    HELD = 2
    """It has a lease."""
    RELEASING = 3
    """Nobody wants it any more, and the store has not confirmed that it is gone."""
    GONE = 4
    """It is in no table."""


_ASKED: State = State.ASKED  # a member of an enum takes its time to be looked up


class Event(enum.IntEnum):
    """What can happen to a request."""

    ASK = 0  # its caller asks again
    GRANTED = 1  # the reply to the caller: it has the slots
    QUEUED = 2  # the reply to the caller: it has a ticket
    REFUSED = 3  # the reply to the caller: neither, or a ticket that waits with nobody behind it
    NO_REPLY = 4  # there is no answer: its caller asks again, or says that it is gone
    NEWS_GRANTED = 5  # news: a waiter has the slots
    NEWS_REFUSED = 6  # news: its waiting is over
    NEWS_LOOK = 7  # news: the answer has changed
    LOST = 8  # news, or the reply to a renewal: its lease has ended
    PREEMPTED = 9  # a message, or the reply to a renewal: its lease is to be released
    ALIVE = 10  # the reply to a renewal: it has a lease
    WAITS = 11  # the reply to a renewal: it has a ticket
    UNKNOWN = 12  # the reply to a renewal: the store knows nothing of it
    DEADLINE = 13  # the time of its lease is over
    RELEASE = 14  # its caller gives it back, and sends the release
    CALLER_GONE = 15  # nobody wants it any more, and nobody sends a release, or it failed
    RELEASED = 16  # the store has confirmed that it is gone
    SILENCE = 17  # messages or replies may have been lost
    LOOK = 18  # the reply to a renewal: it has no lease, and the answer has changed
    WAKE = 19  # all waiters are to ask again, or to say that they are gone
    LOST_UNSURE = 20  # the lease of a holder has ended; an ask may still arrive, and take another
    OVER_UNSURE = 21  # the same, where it is its time that is over
    COLLECTED = 22  # the garbage collector has its holder, which did not release it
    NOT_SENT = 23  # its caller could not ask, and never did before
    FAILED = 24  # the store has answered its release with an error


RENEWALS = {
    "alive": Event.ALIVE,
    "preempted": Event.PREEMPTED,
    "waiting": Event.WAITS,
    "lost": Event.LOST,
    "gone": Event.UNKNOWN,
}
"""What the replies to a renewal mean; any other: the answer has changed."""


class Entry:
    """One request.

    Attributes:
        request: as it was sent last.
        listener: what is notified.
        state: where it stands.
        renew_at: when it is to be renewed, on the local clock.
        expires_at: when the lease counts as lost unless renewed; what is released needs no release
            any more from then on.
        token: the lease's fencing token.
        granted_at: when it was granted, on the local clock.
        held_at: when the grant was read.
        preempted: whether its holder was notified that it is to release.
        known: whether the store has answered for it.
        asking: whether its caller waits for an answer.
        unsure: whether an ask may be on its way still, over a connection that was given up.
        failures: releases of it in a row that the store answered with an error.
        early: a loss whose lease is not known here yet, and that lease's token, 0 if unknown.
    """

    def __init__(self, request: Request, listener: Listener | None, renew_at: float) -> None:
        # All are set here: a default of the class takes four times as long to be read.
        self.request = request
        self.listener = listener
        self.renew_at = renew_at
        self.state = _ASKED
        self.expires_at = 0.0
        self.token = 0
        self.granted_at = 0.0
        self.held_at = 0.0
        self.preempted = False
        self.known = False
        self.asking = True
        self.unsure = False
        self.failures = 0
        self.early: tuple[Loss, int] | None = None

    @property
    def waiting(self) -> bool:
        """Whether it has no lease yet."""
        return self.state < State.HELD

    def has_name_of(self, names: frozenset[str]) -> bool:
        """Whether it is for a limit of one of these names."""
        return any(demand.name in names for demand in self.request.demands)

    @property
    def claimant(self) -> str:
        """Which delivery of a job it is (S18); empty for a call, which has no others."""
        return "" if self.request.payload is None else self.request.claimant

    @property
    def key(self) -> str:
        """The first of its keys: where its records are."""
        return self.request.demands[0].key


class ListenerCall(NamedTuple):
    """A call of a listener that is due: exactly one of these.

    Attributes:
        entry: whose listener.
        loss: `lease_lost`.
        renewed_until: `lease_renewed`.
        answer: `look_again`, with this or with None.
    """

    entry: Entry
    loss: Loss | None = None
    renewed_until: float | None = None
    answer: Answer | None = None


class Work:
    """What there is to do at a node, each thing once.

    Attributes:
        renewals: of what this process waits for and holds.
        looks: keys to be looked at.
        releases: of what is not wanted any more.
        policies: whether to read the policies of names.
        publish: whether there are notices for other processes.
    """

    def __init__(self) -> None:
        self.renewals: dict[Entry, None] = {}
        self.looks: dict[str, None] = {}
        self.releases: dict[Entry, None] = {}
        self.policies = self.publish = False

    def __bool__(self) -> bool:
        return bool(self.renewals or self.looks or self.releases or self.policies or self.publish)

    def add(self, other: Work) -> None:
        """Add what else there is to do."""
        self.renewals |= other.renewals
        self.looks |= other.looks
        self.releases |= other.releases
        self.policies |= other.policies
        self.publish |= other.publish
