"""Snapshots of a key: what `inspect` returns. Import them from `requests`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from limiter_core._held_leases import HeldLease, carries_held, held_in, without_held
from limiter_core.tracing import carries_trace, split_label


def _split(snapshot: HolderSnapshot | WaiterSnapshot) -> None:
    if carries_held(snapshot.label):
        if isinstance(snapshot, WaiterSnapshot):
            object.__setattr__(snapshot, "holds", held_in(snapshot.label))
        object.__setattr__(snapshot, "label", without_held(snapshot.label))
    if carries_trace(snapshot.label):
        label, trace = split_label(snapshot.label)
        object.__setattr__(snapshot, "label", label)
        object.__setattr__(snapshot, "trace", trace)


@dataclass(frozen=True, slots=True)
class HolderSnapshot:
    """One holder of a key.

    Attributes:
        id: the lease's id, for `evict`.
        cost: the slots it holds.
        limit: the limit it declared.
        fencing_token: the token of its grant.
        held_for: seconds since the grant.
        expires_in: seconds until its lease ends unless renewed, None if it has no end.
        claimed: False while the slot was handed over but not claimed yet.
        preempted: whether it has to make room for a newer call.
        label: the name that its caller gave.
        trace: the trace in which the call was made, empty without one (`limiter_core.tracing`). A
            store gives it behind the label, and the snapshot splits the two.
    """

    id: str
    cost: int
    limit: int
    fencing_token: int
    held_for: float
    expires_in: float | None
    claimed: bool
    preempted: bool
    label: str
    trace: str = ""

    def __post_init__(self) -> None:
        _split(self)


@dataclass(frozen=True, slots=True)
class WaiterSnapshot:
    """One ticket in a key's queue.

    Attributes:
        id: the ticket's id.
        cost: the slots it wants.
        limit: the limit it declared.
        priority: higher is served first.
        group: its fair group, None without one.
        waiting_for: seconds since it arrived.
        durable: whether it waits without a process behind it.
        label: the name that its caller gave.
        name: the gate whose workers can wake it; empty for a call, which wakes by itself.
        deferred: whether it is behind all others for a while, since it did not claim the slots
            that it was offered.
        trace: as that of a holder.
        holds: the leases that its task or thread holds until it goes on, if it has waited for a
            second without a timeout; a store gives them behind the label.
    """

    id: str
    cost: int
    limit: int
    priority: int
    group: str | None
    waiting_for: float
    durable: bool
    label: str
    name: str = ""
    deferred: bool = False
    trace: str = ""
    holds: tuple[HeldLease, ...] = ()

    def __post_init__(self) -> None:
        _split(self)


@dataclass(frozen=True, slots=True)
class DormantSnapshot:
    """The dormant tickets of one gate in a key's queue (S17).

    Attributes:
        name: the gate that has no worker.
        absent_for: seconds since its last worker left, or was not seen any more; None if the store
            knows of none.
        waiting: its tickets in the queue.
        waiters: in the order in which they will be served when a worker is there again; the first
            `KeySnapshot.WAITERS_SHOWN` of them.
    """

    name: str
    absent_for: float | None
    waiting: int
    waiters: tuple[WaiterSnapshot, ...]


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """The state of one key at one moment.

    Attributes:
        key: the key's text.
        limit: the limit in force: the operator's override if there is one, else the number that
            was declared (the highest, where callers disagree; 0 on a key that is not in use).
        in_use: slots in use.
        waiting: tickets in the key's queue, without those that are dormant.
        paused: whether an operator paused the key.
        override: the operator's limit, None without one.
        declared: the numbers that holders and waiters declare, ascending; more than one means
            that they disagree.
        holders: oldest first.
        waiters: in the order in which they will be served; the first `WAITERS_SHOWN` of them.
        dormant: tickets of job queues without a worker, by the names of their gates.
        name: what the limit is called; empty if the store does not know it. Where limits of
            several names share the key, that of the last call which was admitted or queued.
    """

    WAITERS_SHOWN: ClassVar[int] = 100

    key: str
    limit: int
    in_use: int
    waiting: int
    paused: bool
    override: int | None
    declared: tuple[int, ...]
    holders: tuple[HolderSnapshot, ...]
    waiters: tuple[WaiterSnapshot, ...]
    dormant: tuple[DormantSnapshot, ...] = ()
    name: str = ""

    def declared_as(self, limit: int) -> KeySnapshot:
        """Return the snapshot for a caller that declares this limit for the key."""
        declared = tuple(sorted({*self.declared, limit}))
        return replace(
            self, limit=limit if self.override is None else self.override, declared=declared
        )
