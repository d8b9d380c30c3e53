"""From the state machine's records to what `inspect` shows."""

from __future__ import annotations

import heapq

from limiter_core.requests import (
    Demand,
    DormantSnapshot,
    HolderSnapshot,
    KeySnapshot,
    Request,
    WaiterSnapshot,
)
from limiter_memory._heap import Heap
from limiter_memory._presence import Presences
from limiter_memory._records import Holder, KeyState, Ticket


def snapshot_of(key: str, state: KeyState | None, presences: Presences, now: int) -> KeySnapshot:
    """Return the snapshot of a key at `now` microseconds; of an unused one if there is no state."""
    if state is None:
        return KeySnapshot(key, 0, 0, 0, False, None, (), (), ())
    in_line = state.in_line(presences, now)
    dormant = [name for name in state.jobs if not presences.has(name, now)]
    waiters = heapq.nsmallest(
        KeySnapshot.WAITERS_SHOWN,
        (ticket for heap in in_line for ticket in heap.smallest(KeySnapshot.WAITERS_SHOWN)),
        key=Ticket.rank,
    )
    declared = {_demand(holder.request, key).limit for holder in state.holders.values()}
    declared.update(ticket.home.limit for ticket in waiters)
    return KeySnapshot(
        key=key,
        limit=max(declared, default=0) if state.override is None else state.override,
        in_use=state.in_use,
        waiting=sum(map(len, in_line)),
        paused=state.paused,
        override=state.override,
        declared=tuple(sorted(declared)),
        holders=tuple(_holder(holder, key, now) for holder in state.holders.values()),
        waiters=tuple(_waiter(ticket, now) for ticket in waiters),
        dormant=tuple(
            _dormant(name, state.jobs[name], presences.until(name), now) for name in sorted(dormant)
        ),
        name="" if state.idle() else state.name,
    )


def _dormant(name: str, heap: Heap[Ticket], until: int, now: int) -> DormantSnapshot:
    shown = heap.smallest(KeySnapshot.WAITERS_SHOWN)
    return DormantSnapshot(
        name=name,
        absent_for=(now - until) / 1_000_000 if until else None,
        waiting=len(heap),
        waiters=tuple(_waiter(ticket, now) for ticket in shown),
    )


def _holder(holder: Holder, key: str, now: int) -> HolderSnapshot:
    demand = _demand(holder.request, key)
    due = holder.due()
    return HolderSnapshot(
        id=holder.request.id,
        cost=demand.cost,
        limit=demand.limit,
        fencing_token=holder.fencing_token,
        held_for=(now - holder.since) / 1_000_000,
        expires_in=None if due is None else (due - now) / 1_000_000,
        claimed=holder.claimed,
        preempted=holder.preempted,
        label=holder.request.label,
    )


def _waiter(ticket: Ticket, now: int) -> WaiterSnapshot:
    demand = ticket.home
    return WaiterSnapshot(
        id=ticket.request.id,
        cost=demand.cost,
        limit=demand.limit,
        priority=demand.priority,
        group=demand.group,
        waiting_for=(now - ticket.since) / 1_000_000,
        durable=ticket.request.payload is not None,
        label=ticket.request.label,
        name=ticket.name,
        deferred=ticket.deferred_until is not None,
    )


def _demand(request: Request, key: str) -> Demand:
    return next(demand for demand in request.demands if demand.key == key)
