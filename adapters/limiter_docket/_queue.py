"""Parking of tasks in Docket's own queue: one script parks a task, one brings it forward.

A ticket is for one `when` of a task (seconds since the epoch, as text). Waiting does not change
it; all else that reschedules a task, or runs it again, gives it another `when`.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple, cast

from docket import Docket, Execution

_LUA = resources.files("limiter_docket") / "lua"
_PARK, _FORWARD, _WAKE = (
    (_LUA / f"{name}.lua").read_text("utf-8") for name in ("park", "bring_forward", "wake")
)
_BRING_FORWARD = f"{_FORWARD}\nreturn bring_forward(KEYS, ARGV)"
WAKE = _FORWARD + _WAKE
"""What the store's script does with a ticket whose waiting ended, if it is in the same Redis."""


def when_of(execution: Execution) -> str:
    """Return the `when` of a task."""
    return repr(execution.when.timestamp())


def ticket_of(docket: Docket, key: str, when: str) -> str:
    """Return the ticket of a task for one `when`."""
    return f"{docket.prefix}:{key}#{when}"


def order_of(execution: Execution) -> int:
    """Return when a delivery was added to the stream, in microseconds since the epoch."""
    message: Any = execution.message_id
    milliseconds, sequence = bytes(message).decode().split("-")
    return int(milliseconds) * 1000 + min(int(sequence), 999)


async def park(execution: Execution, keys: tuple[str, ...], at: float) -> str:
    """Park a delivery until `at` (seconds since the epoch).

    Stores what the task waits for; `parked_task` returns it.

    Returns:
        "parked", or why not: "cancelled", "moved" or "gone"; see park.lua.
    """
    docket, since = execution.docket, execution.started_at
    delivery = (docket.worker_group_name, execution.message_id, execution.generation)
    when, key = when_of(execution), execution.key
    more = (*delivery, since.isoformat() if since else "", repr(at), " ".join((when, *keys)))
    reply: str = (await _evaluate(_PARK, docket, key, when, "scheduled", *more)).decode()
    if reply == "offered":  # its slot was granted meanwhile
        return "parked" if await bring_forward(docket, key, when) else "gone"
    return reply


async def bring_forward(docket: Docket, key: str, when: str) -> bool:
    """Make the task due that waits for this `when`; False if there is none any more."""
    return bool(await _evaluate(_BRING_FORWARD, docket, key, when, "queued"))


class Parked(NamedTuple):
    """What is known of a task that waited.

    Attributes:
        is_cancelled: whether it was cancelled meanwhile.
        when: for which `when` it waited last; empty if it did not wait.
        keys: on which keys.
        function: the name of its function, None if that is not known.
    """

    is_cancelled: bool
    when: str
    keys: tuple[str, ...]
    function: str | None


async def parked_task(docket: Docket, key: str) -> Parked:
    """Return what is known of a task that waited."""
    run = docket.runs_key(key)
    async with docket.redis() as redis:
        when, *keys = (await redis.hget(run, "limiter") or b"").decode().split(" ")
        is_cancelled = bool(when) and await redis.hget(run, "state") == b"cancelled"
        function = await redis.hget(run, "function")
    name = None if function is None else function.decode()
    return Parked(is_cancelled, when, tuple(keys), name)


async def _evaluate(
    script: str, docket: Docket, key: str, when: str, state: str, *more: Any
) -> Any:
    keys = (docket.stream_key, docket.queue_key, docket.parked_task_key(key), docket.runs_key(key))
    event = json.dumps({"type": "state", "key": key, "state": state})
    arguments = (key, when, docket.key(f"state:{key}"), event, *more)
    async with docket.redis() as redis:
        return await cast(Any, redis).register_script(script)(keys=keys, args=arguments)
