"""Where a task waits: in Docket's own queue, from which two scripts take it and bring it back."""

from __future__ import annotations

import json
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple, cast

from docket import Docket, Execution

_PARK = resources.files("limiter_docket").joinpath("lua/park.lua").read_text("utf-8")
_BRING_FORWARD = (
    resources.files("limiter_docket").joinpath("lua/bring_forward.lua").read_text("utf-8")
)

_ASKS_WITHIN = 10.0
"""Seconds after a worker took a task in which it will have asked for its slot, if it lives."""


class Note(NamedTuple):
    """What a run's record says of the last time it was parked.

    Attributes:
        generation: of the message that goes on with the ticket.
        name: the message that names the ticket.
        keys: the limiter's keys.
    """

    generation: int
    name: str
    keys: tuple[str, ...]


async def read_note(docket: Docket, key: str) -> Note | None:
    """Return what was noted when a task was parked; None if it never was."""
    async with docket.redis() as redis:
        found = await redis.hget(docket.runs_key(key), "limiter")
    if found is None:
        return None
    generation, name, *keys = found.decode().split(" ")
    return Note(int(generation), name, tuple(keys))


async def was_cancelled(docket: Docket, key: str) -> bool:
    """Whether the task was cancelled while no worker had it, and not added again since."""
    async with docket.redis() as redis:
        if await redis.hget(docket.runs_key(key), "state") != b"cancelled":
            return False
        return await redis.hget(docket.runs_key(key), "worker") is None


async def is_there(execution: Execution) -> bool:
    """Whether the message of a delivery is not acknowledged yet."""
    async with execution.docket.redis() as redis:
        stream, message = execution.docket.stream_key, cast(Any, execution.message_id)
        return bool(await cast(Any, redis).xrange(stream, message, message))


async def park(execution: Execution, name: str, keys: tuple[str, ...], at: float) -> str:
    """Park a delivery until `at` (seconds since the epoch); see park.lua for the answers."""
    docket, key = execution.docket, execution.key
    said: str = await _evaluate(
        docket,
        key,
        _PARK,
        docket.worker_group_name,
        execution.message_id,
        str(execution.generation),
        key,
        name,
        repr(at),
        " ".join(keys),
        docket.key(f"state:{key}"),
        _event(key, "scheduled"),
        "" if execution.started_at is None else execution.started_at.isoformat(),
    )
    return said


async def bring_forward(docket: Docket, key: str, name: str, offered_at: float = 0.0) -> int | None:
    """Wake the task that waits under a ticket.

    Args:
        docket: the docket.
        key: the task's key.
        name: the message that names the ticket.
        offered_at: when its slot was offered, in seconds since the epoch.

    Returns:
        Its generation; 0 if it is on its way already; None if there is none (any more).
    """
    said, *more = await _evaluate(
        docket, key, _BRING_FORWARD, key, name, docket.key(f"state:{key}"), _event(key, "queued")
    )
    if said == b"woken":
        return int(more[0])
    if said == b"running" and more[0]:
        # A worker that died in between keeps the slot no longer than one claim. Not by the time
        # it is now: a notice that comes late must not take the slot from a body that runs.
        taken = datetime.fromisoformat(more[0].decode()).timestamp()
        return None if offered_at > taken + _ASKS_WITHIN else 0
    return 0 if said == b"queued" else None


async def _evaluate(docket: Docket, key: str, script: str, *arguments: Any) -> Any:
    keys = (docket.stream_key, docket.queue_key, docket.parked_task_key(key), docket.runs_key(key))
    async with docket.redis() as redis:
        reply = await cast(Any, redis).eval(script, len(keys), *keys, *arguments)
    return reply.decode() if isinstance(reply, bytes) else reply


def _event(key: str, state: str) -> str:
    return json.dumps({"type": "state", "key": key, "state": state})
