"""The warning about a call that waits for long: where it stands, and which calls hold the slots."""

from __future__ import annotations

import logging
import math

from limiter_core._call import Call
from limiter_core.explanation import held_by
from limiter_core.requests import KeySnapshot, Queued

logger = logging.getLogger("limiter")

INSPECT_PATIENCE = 1.0
"""Seconds that the look at the key may take; the call could be granted its slot meanwhile."""


def key_to_inspect(call: Call) -> str | None:
    """Return the key that a call waits for, if it is time to warn of it; once."""
    if call.queued is None or call.now() < call.look_at:
        return None
    call.look_at = math.inf
    return call.queued.key


def warn(call: Call, state: KeySnapshot | None) -> None:
    """Log that a call waits.

    Args:
        call: the call.
        state: of the key; None if the store did not answer in time.
    """
    queued = call.queued
    assert queued is not None
    assert call.waiting_since is not None
    waited = call.now() - call.waiting_since
    place = None if state is None else _place(call, state)
    logger.warning(
        "a call waits for %r for %.0f s so far: %s",
        queued.key,
        waited,
        _unanswered(queued) if state is None else _described(state, place),
        extra={
            "outcome": "waiting",
            "limit": ",".join(getattr(demand, "name", "") for demand in call.request.demands),
            "key": queued.key,
            "waited": round(waited, 3),
            "place": place,
            "lease_id": call.request.id,
        },
    )


def _place(call: Call, state: KeySnapshot) -> int | None:
    ids = [waiter.id for waiter in state.waiters]
    return ids.index(call.request.id) + 1 if call.request.id in ids else None


def _unanswered(queued: Queued) -> str:
    return (
        f"{queued.in_use} of {queued.max_concurrent} slots were in use; "
        "the store did not say in time which calls hold them"
    )


def _described(state: KeySnapshot, place: int | None) -> str:
    paused = "the key is paused by an operator, " if state.paused else ""
    behind = "" if place is None else f"place {place} of {state.waiting} in line, "
    return (
        f"{paused}{behind}{state.in_use} of {state.limit} slots in use"
        f"{', ' if state.holders else ''}{held_by(state.holders)}"
    )
