"""Functions of a key's state and a request, for the answers of the state machine."""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Mode, Request, from_fields
from limiter_memory._presence import Presences
from limiter_memory._records import Holder, KeyState


def has_precedence(
    state: KeyState, demand: Demand, arrival: tuple[int, int], presences: Presences, now: int
) -> bool:
    """Whether no waiter and no pause has precedence over a call whose slots are free (S3)."""
    if state.paused:
        return False
    first = state.head(presences, now)
    if first is None:
        return True
    round_ = state.next_round(demand, presences, now)
    return first.rank() >= (False, -demand.priority, round_, *arrival)


def refusing_demand(request: Request, blocking: Sequence[Demand]) -> Demand | None:
    """Return the demand because of which a blocked request may not wait, if there is one."""
    if request.mode is not Mode.WAIT:
        return blocking[0]
    for demand in blocking:
        if demand.on_conflict is ConflictResolution.CANCEL:
            return demand
    return None


def granted(holder: Holder, now: int) -> Granted:
    if holder.expires_at is None and holder.ends_at is None:
        return from_fields(Granted, (holder.fencing_token, None, 0.0, None))
    due = holder.due()
    return Granted(holder.fencing_token, None if due is None else in_seconds(due - now))


def next_look(state: KeyState, now: int) -> float | None:
    due = state.next_event()
    return None if due is None else max(0.0, in_seconds(due - now))


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def in_seconds(microseconds: int) -> float:
    return microseconds / 1_000_000


def lease_end(request: Request, now: int) -> int | None:
    """Return when a lease ends unless renewed; never, while its holder lives in this process."""
    return None if request.listener is not None else now + microseconds(request.lease)


def ticket_end(request: Request, now: int) -> int | None:
    """Return when a ticket ends unless renewed; never, if no process has to be there for it."""
    return None if request.payload is not None else lease_end(request, now)
