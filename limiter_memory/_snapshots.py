"""From the state machine's records to what `inspect` shows."""

from __future__ import annotations

from limiter_core.requests import Demand, HolderSnapshot, KeySnapshot, Request, WaiterSnapshot
from limiter_memory._records import Holder, KeyState, Ticket


def snapshot_of(key: str, state: KeyState | None, now: int) -> KeySnapshot:
    """Return the snapshot of a key at `now` microseconds; of an unused one if there is no state."""
    if state is None:
        return KeySnapshot(key, 0, 0, 0, False, None, (), (), ())
    waiters = state.queue.smallest(KeySnapshot.WAITERS_SHOWN)
    declared = {_demand(holder.request, key).limit for holder in state.holders.values()}
    declared.update(ticket.home.limit for ticket in waiters)
    return KeySnapshot(
        key=key,
        limit=max(declared, default=0) if state.override is None else state.override,
        in_use=state.in_use,
        waiting=len(state.queue),
        paused=state.paused,
        override=state.override,
        declared=tuple(sorted(declared)),
        holders=tuple(_holder(holder, key, now) for holder in state.holders.values()),
        waiters=tuple(_waiter(ticket, now) for ticket in waiters),
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
    )


def _demand(request: Request, key: str) -> Demand:
    return next(demand for demand in request.demands if demand.key == key)
