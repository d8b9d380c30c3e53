"""Looks at calls that wait for long: a warning where each stands, and rings of such calls."""

from __future__ import annotations

import logging
import math

from limiter_core._call import Call
from limiter_core._held_leases import HeldLease
from limiter_core._names import name_at
from limiter_core._rings import Looks, RingWatch
from limiter_core._store_methods import bounded_inspect
from limiter_core.durations import duration_text
from limiter_core.errors import StoreError, StoreUnavailable, named_key, slots_text
from limiter_core.explanation import held_by
from limiter_core.requests import Answer, KeySnapshot, Queued
from limiter_core.store import AsyncStore, SyncStore

logger = logging.getLogger("limiter")

INSPECT_PATIENCE = 1.0
"""Seconds that the look at the key may take; the call could be granted its slot meanwhile."""


_NEXT_LOOK = 1.0
"""Seconds until the next look at a call that had no answer from its store."""


def watch_rings(call: Call, held: tuple[HeldLease, ...]) -> None:
    """Have a call looked at that waits from now on, in case others wait for what it holds.

    Args:
        call: the call.
        held: the leases that it holds until it goes on.
    """
    if held:
        call.rings = RingWatch(held, call.now())
        call.look_at = min(call.look_at, call.rings.look_at)


def look_now(call: Call, answer: Answer | StoreUnavailable, face: SyncStore) -> None:
    """Look at a call that waits for long, since it is time."""
    inspect, steps = bounded_inspect(face), _looks(call, answer)
    key = next(steps, None)
    while key is not None:
        try:
            state = inspect(key, call.now() + INSPECT_PATIENCE)
        except StoreError:
            state = None
        key = _send(steps, state)


async def look(call: Call, answer: Answer | StoreUnavailable, face: AsyncStore) -> None:
    """Look at a call that waits for long, since it is time."""
    inspect, steps = bounded_inspect(face), _looks(call, answer)
    key = next(steps, None)
    while key is not None:
        try:
            state = await inspect(key, call.now() + INSPECT_PATIENCE)
        except StoreError:
            state = None
        key = _send(steps, state)


def _send(steps: Looks, state: KeySnapshot | None) -> str | None:
    try:
        return steps.send(state)
    except StopIteration:
        return None


def _looks(call: Call, answer: Answer | StoreUnavailable) -> Looks:
    now = call.now()
    if not isinstance(answer, Queued):
        call.look_at = now + _NEXT_LOOK
        return
    call.queued = answer
    if now >= call.warn_at:
        call.warn_at = math.inf
        warn(call, (yield answer.key))
    if call.rings is not None and now >= call.rings.look_at:
        yield from call.rings.look(call, answer.key, call.now())
    call.look_at = call.warn_at if call.rings is None else min(call.warn_at, call.rings.look_at)


def warn(call: Call, state: KeySnapshot | None) -> None:
    """Log that a call waits.

    Args:
        call: the call.
        state: of the key; None if the store did not answer in time.
    """
    queued = call.queued
    assert queued is not None
    waited = call.now() - call.waiting_since
    place = None if state is None else _place(call, state)
    logger.warning(
        "a call waits for %s for %s so far: %s",
        named_key(queued.key, name_at(call.demands, queued.key)),
        duration_text(waited),
        _unanswered(queued) if state is None else _described(state, place),
        extra={
            "outcome": "waiting",
            "limit": ",".join(demand.name for demand in call.demands),
            "key": queued.key,
            "waited": round(waited, 3),
            "place": place,
            "lease_id": call.id,
        },
    )


def _place(call: Call, state: KeySnapshot) -> int | None:
    ids = [waiter.id for waiter in state.waiters]
    return ids.index(call.id) + 1 if call.id in ids else None


def _unanswered(queued: Queued) -> str:
    return (
        f"{slots_text(queued.in_use, queued.max_concurrent)}; "
        "the store did not say in time which calls hold them"
    )


def _described(state: KeySnapshot, place: int | None) -> str:
    paused = "the key is paused by an operator, " if state.paused else ""
    behind = "" if place is None else f"place {place} of {state.waiting} in line, "
    return (
        f"{paused}{behind}{state.in_use} of {state.limit} slots in use"
        f"{', ' if state.holders else ''}{held_by(state.holders)}"
    )
