"""What a store is asked and what it answers: immutable values, the same for every store.

Durations are seconds. `NamedTuple` where one is made for every call (it costs half of a frozen
dataclass), frozen dataclasses elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from limiter_core._checks import MAX_NUMBER
from limiter_core._snapshots import DormantSnapshot, HolderSnapshot, KeySnapshot, WaiterSnapshot
from limiter_core.limits import ConflictResolution

__all__ = (
    "CLAIM",
    "NO_LIMIT",
    "PRESENCE",
    "Answer",
    "Demand",
    "DormantSnapshot",
    "Granted",
    "Held",
    "HolderSnapshot",
    "KeySnapshot",
    "Listener",
    "Loss",
    "Mode",
    "Notice",
    "Presence",
    "Queued",
    "Refusal",
    "Refused",
    "Renewal",
    "Replaced",
    "Request",
    "WaiterSnapshot",
)


T = TypeVar("T")


class FromFields(Protocol):
    """The type of `from_fields`."""

    def __call__(self, kind: type[T], fields: tuple[Any, ...], /) -> T:
        """Return a named tuple of all its fields."""
        ...


from_fields: FromFields = cast(Any, tuple).__new__
"""Makes a named tuple of all its fields, in their order: for those that are made for every call.

Calling the class runs one more function of Python's for each. Nothing checks the number of fields.
"""


class Mode(enum.Enum):
    """What a request wants when there is no room at once."""

    WAIT = "wait"
    """A ticket, if the limits let it wait."""
    TRY = "try"
    """A refusal, without any effect on others."""
    RECLAIM = "reclaim"
    """A slot it held before the store lost its data: if it fits, ahead of the queue; or refusal."""
    LOOK = "look"
    """Only the status of the request. Nothing is taken, claimed or renewed: `Granted` is a slot
    that waits to be claimed, `Held` one that was claimed, `Refusal.UNKNOWN` neither."""


class Loss(enum.Enum):
    """Why a lease ended, or has to."""

    EXPIRED = "it was not renewed in time"
    OVERRAN = "it was held longer than its max_hold"
    EVICTED = "it was evicted"
    PREEMPTED = "a newer call took the slot"
    FORGOTTEN = "the store no longer knows it"
    CUT_OFF = "the store could not be reached before the lease ended"


class Listener(Protocol):
    """The caller in this process that waits for, or holds, what a request asked for.

    A store calls it from any thread: its methods return at once, never raise, and never call the
    store.
    """

    def look_again(self, answer: Answer | None = None) -> bool:
        """The answer to the waiting request has changed.

        Args:
            answer: the new answer, if the store can vouch for it: with a `Granted` the slot is
                taken up. None: ask again to learn it.

        Returns:
            False if the caller cannot ask again (the event loop ended): the store then treats
            the request as released.
        """
        ...

    def lease_renewed(self, expires_at: float) -> None:
        """The lease now lives until `expires_at`, on the store's local clock (`now()`)."""

    def lease_lost(self, loss: Loss) -> None:
        """The lease is gone, or under `Loss.PREEMPTED` should be released soon."""


class Demand(NamedTuple):
    """What a request wants of one key.

    Attributes:
        key: the key's text.
        limit: the number of slots that the caller declares the key to have (S12).
        cost: the slots wanted.
        on_conflict: what happens if they are not free.
        priority: the place in the key's queue, higher first; 0 but for `PRIORITY`.
        group: the fair group within the key's queue, None for no group.
        max_waiting: tickets that may wait on the key, None for any number.
        name: what the limit is called, for `inspect`; empty if unknown. A store keeps the last one
            with which a new request was admitted or queued (S20).
    """

    key: str
    limit: int
    cost: int = 1
    on_conflict: ConflictResolution = ConflictResolution.QUEUE
    priority: int = 0
    group: str | None = None
    max_waiting: int | None = None
    name: str = ""


CLAIM = 5.0
"""Seconds in which a waiter has to claim a slot, unless its request has others."""


NO_LIMIT = MAX_NUMBER
"""The number of slots of a key that bounds nothing: an adapter keeps a set of names under it."""


PRESENCE = 5.0
"""Seconds after which a worker that was not seen again counts as gone."""


class Presence(NamedTuple):
    """A worker that can wake the jobs of a gate (S17).

    Attributes:
        name: the gate's name. All workers that give it can wake the same jobs.
        worker: distinguishes the workers of that name.
        leaving: whether it stops to wake jobs now. Those of its name then wait for another worker.
    """

    name: str
    worker: str
    leaving: bool = False


class Request(NamedTuple):
    """All that a store needs to know of a call. Repeating it is safe (S1).

    Attributes:
        id: made by the caller, unique; names the ticket and then the lease.
        demands: one for each key, no key twice.
        lease: seconds a lease lives without renewal. A request with a listener is kept alive by
            its store for as long as this process lives.
        mode: what to do when there is no room.
        max_hold: seconds after which the lease ends in spite of renewals, None for no bound.
        claim: seconds in which a waiter has to claim a slot that was handed to it; a request with a
            listener in the store's own process has all the time it needs.
        order: the arrival order, in microseconds since the epoch; None for "now". A waiter that
            asks again gives the order that `Queued` named, and so keeps its place.
        payload: makes the ticket durable (S17): it waits with no process behind it, and this is
            handed to the process that frees its slot. Empty bytes are a payload too.
        claimant: distinguishes deliveries of one durable job (S18): the claimant that took the slot
            is granted it again, any other gets `Held`.
        label: the caller's name, for `inspect`; perhaps with a trace behind it (S21), and with the
            leases that a waiter holds.
        fencing_token: under `Mode.RECLAIM`, the token the lease had.
        listener: gets the notifications in this process; None for none. That of a durable request
            gets those of the lease only: while it waits it needs no process.
        deadline: when the caller's patience ends, on the store's local clock (`now()`); None for
            never. A store that has no answer a moment later (0.15 s) raises `StoreUnavailable`.
        presence: the worker that asks with a payload: only workers of its name can wake the job, so
            without them the ticket is dormant (S17). None: it can always be woken.
    """

    id: str
    demands: tuple[Demand, ...]
    lease: float = 30.0
    mode: Mode = Mode.WAIT
    max_hold: float | None = None
    claim: float = CLAIM
    order: int | None = None
    payload: bytes | None = None
    claimant: str = ""
    label: str = ""
    fencing_token: int | None = None
    listener: Listener | None = None
    deadline: float | None = None
    presence: Presence | None = None


class Granted(NamedTuple):
    """The slots are the caller's.

    Attributes:
        fencing_token: strictly higher than every earlier one of each of the keys (S11).
        expires_in: seconds until the lease ends unless renewed, counted from the moment the
            request was sent; None for as long as the process lives.
        margin: seconds that the store itself keeps the lease for longer, so that a holder has
            stopped before another begins.
        waited: seconds that a durable ticket waited, if the slot was kept for it; else None.
    """

    fencing_token: int
    expires_in: float | None
    margin: float = 0.0
    waited: float | None = None


class Queued(NamedTuple):
    """A ticket waits. Ask again when the listener is notified, or after `look_again`.

    Attributes:
        key: the key in whose queue the ticket sits.
        max_concurrent: the limit in force there, 0 while the key is paused.
        in_use: the slots in use there.
        order: the arrival order of the ticket, to be given when asking again.
        look_again: seconds after which to ask again even if the listener was not notified; None
            when only an event that the listener is notified of can change anything.
        blocker: the label, and the trace in it, of the oldest holder of the key; only if the
            request's own label carries a trace (S21), else empty.
        blocked_by: all keys of the request that block it, in the order of its demands; empty if
            that is `key` alone, and it is for no other.
    """

    key: str
    max_concurrent: int
    in_use: int
    order: int
    look_again: float | None
    blocker: str = ""
    blocked_by: tuple[str, ...] = ()


class Refusal(enum.Enum):
    """Why a request was refused."""

    FULL = "full"
    QUEUE_FULL = "queue full"
    COST = "cost above the limit"
    EVICTED = "evicted while it waited"
    UNKNOWN = "no such request"
    """Only under `Mode.LOOK`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No slot and no ticket; nothing was taken.

    Attributes:
        key: the first key that refused.
        max_concurrent: the limit in force there, 0 while the key is paused.
        in_use: the slots in use there.
        held_for: seconds since the oldest grant there that holds slots; None if none does, or a
            store would have to search for it.
        reason: why.
        waiting: tickets in the queue there, without those that are dormant.
        blocked_by: all keys of the request that are full, or have waiters with precedence, in the
            order of its demands; empty if that is `key` alone.
    """

    key: str
    max_concurrent: int
    in_use: int
    held_for: float | None = None
    reason: Refusal = Refusal.FULL
    waiting: int = 0
    blocked_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer call took the ticket's place on `key`; the ticket is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class Held:
    """A durable request's id already holds a live lease under another claimant (S18).

    Attributes:
        expires_in: seconds until that lease ends unless renewed, None if it has no end.
    """

    expires_in: float | None


Answer = Granted | Queued | Refused | Replaced | Held
"""The answers to a request."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The outcome of a durable ticket, for a process that can wake its job (S17).

    Attributes:
        id: the ticket.
        payload: what the request carried.
        answer: `Granted` (claim it within its claim time), `Refused` or `Replaced`.
        name: the gate whose workers can wake the job; empty if the request named none.
        limits: the keys that the ticket wanted slots of, each with the name of its limit; a gate
            takes them from the payload.
    """

    id: str
    payload: bytes
    answer: Granted | Refused | Replaced
    name: str = ""
    limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to a renewal: the ids that are not simply alive.

    Attributes:
        gone: leases and tickets that no longer exist, with the reason if it is known.
        preempted: leases that live, but should be released soon.
    """

    gone: Mapping[str, Loss] = field(default_factory=dict[str, Loss])
    preempted: frozenset[str] = frozenset()
