"""The two callers of the simulation: they ask, wait, hold and let go, as the limiters do."""

from __future__ import annotations

import enum

from limiter_core import ConflictResolution
from limiter_core.requests import Answer, Demand, Granted, Loss, Mode, Queued, Request
from limiter_redis.session.local_requests import LocalRequests

LEASE = 30.0
MAX_HOLD = 20.0

APART = ("one job, two processes",)
"""Those of `KINDS` in which each caller is in a process of its own."""

KINDS = ("one key", "two keys", "one job", *APART, "preempting", "preempted goes on", "max_hold")
"""What the two callers ask for: slots of one key or of two; as two deliveries of one job, in one
process or two; so that each preempts the other, which releases when it is notified, or goes on; or
for a bounded time, `MAX_HOLD`."""


class Status(enum.Enum):
    """What a caller does."""

    IDLE = "idle"
    ASKING = "asking"
    WAITING = "waiting"
    WOKEN = "woken"
    """It was told to ask again, and asks next, whatever it is told meanwhile."""
    HOLDING = "holding"
    COLLECTED = "collected"
    """The garbage collector has its lease, and the store is not told yet."""
    PARKED = "parked"
    """Its job waits in the store, with nobody behind it."""
    REFUSED = "refused"
    GONE = "gone"


WANTS = (Status.ASKING, Status.WAITING, Status.WOKEN, Status.HOLDING)


class Caller:
    """A caller, which is the listener of its requests.

    Attributes:
        number: 0 or 1.
        request: as it sends it.
        look: the same, which only looks.
        status: what it does.
        goes_on: whether it goes on when it is preempted.
        asks_again: whether it was told to ask again.
        delivered: the answer that it was told beside the replies.
        loss: the loss that it was told.
        outcomes: all answers that ended its asking.
        is_there: whether its event loop runs.
        ends_at: the end of its lease, as it was told.
        was_granted: whether news said that it has the slot, and none that it lost it.
        was_collected: whether it left its lease to its end.
        requests: the books of its process.
    """

    requests: LocalRequests

    def __init__(self, number: int, request: Request, *, goes_on: bool) -> None:
        self.number = number
        self.request = request._replace(listener=self)
        self.look = self.request._replace(mode=Mode.LOOK)
        self.goes_on = goes_on
        self.status = Status.IDLE
        self.asks_again = False
        self.delivered: Answer | None = None
        self.loss: Loss | None = None
        self.outcomes: list[str] = []
        self.is_there = True
        self.ends_at = 0.0
        self.was_granted = self.was_collected = False

    @property
    def is_job(self) -> bool:
        return self.request.payload is not None

    @property
    def has_to_let_go(self) -> bool:
        """Whether it was notified of a loss, and has not acted on it yet."""
        if self.loss is None or (self.goes_on and self.loss is Loss.PREEMPTED):
            return False
        return self.status in {Status.WAITING, Status.HOLDING}

    def look_again(self, answer: Answer | None = None) -> bool:
        if not self.is_there:
            return False
        self.asks_again = True
        self.delivered = answer
        self.was_granted |= isinstance(answer, Granted)
        if self.status is Status.WAITING and answer is not None:
            self.take(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        self.ends_at = expires_at

    def lease_lost(self, loss: Loss) -> None:
        if self.status in WANTS and self.loss in {None, Loss.PREEMPTED}:
            self.loss = loss
            self.was_granted &= loss is Loss.PREEMPTED

    def begin(self) -> None:
        """Ask."""
        self.status, self.asks_again, self.delivered = Status.ASKING, False, None

    def take(self, answer: Answer) -> None:
        """Go on with an answer."""
        if isinstance(answer, Queued):
            if self.is_job:
                self.status = Status.PARKED
            elif self.delivered is not None:
                self.take(self.delivered)
            else:
                self.status = Status.WAITING
        elif isinstance(answer, Granted):
            self.status = Status.HOLDING
            self.outcomes.append("granted")
            self.ends_at = 0.0
        else:
            self.status = Status.REFUSED
            self.outcomes.append("refused")


class OtherProcess:
    """The listener of what another process asks for."""

    def look_again(self, answer: Answer | None = None) -> bool:
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Nothing follows."""

    def lease_lost(self, loss: Loss) -> None:
        """Nothing follows."""


def callers_of(kind: str) -> list[Caller]:
    """Return two callers, by one of `KINDS`."""
    assert kind in KINDS, kind
    preempts = kind in {"preempting", "preempted goes on"}
    on_conflict = ConflictResolution.CANCEL_RUNNING if preempts else ConflictResolution.QUEUE
    callers: list[Caller] = []
    for number in range(2):
        key = f"k{number}" if kind == "two keys" else "k"
        request = Request(f"r{number}", (Demand(key, 1, on_conflict=on_conflict),), LEASE)
        if kind == "one job" or kind in APART:
            request = request._replace(id="job", payload=b"x", claimant=f"c{number}")
        if kind == "max_hold":
            request = request._replace(max_hold=MAX_HOLD)
        callers.append(Caller(number, request, goes_on=kind == "preempted goes on"))
    return callers
