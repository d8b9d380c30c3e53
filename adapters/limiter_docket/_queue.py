"""Where a task waits: in Docket's own queue, from which two scripts take it and bring it back."""

from __future__ import annotations

import json
from datetime import datetime
from importlib import resources
from typing import Any, cast

from docket import Docket, Execution

_LUA = resources.files("limiter_docket") / "lua"
_PARK, _BRING_FORWARD = (
    (_LUA / f"{name}.lua").read_text("utf-8") for name in ("park", "bring_forward")
)


async def park(execution: Execution, keys: tuple[str, ...], at: float) -> str:
    """Park a delivery until `at` (seconds since the epoch); see park.lua for the answers.

    What it waits under is noted: `waits_under` returns it.
    """
    started_at = execution.started_at
    reply = await _evaluate(
        _PARK,
        execution.docket,
        execution.key,
        execution.when,
        execution.docket.worker_group_name,
        execution.message_id,
        execution.generation,
        "" if started_at is None else started_at.isoformat(),
        repr(at),
        " ".join((execution.when.isoformat(), *keys)),
        state="scheduled",
    )
    return reply if isinstance(reply, str) else cast(bytes, reply).decode()


async def bring_forward(docket: Docket, key: str, when: datetime) -> bool:
    """Wake the task that waits under a ticket; False if there is none any more."""
    return bool(await _evaluate(_BRING_FORWARD, docket, key, when, state="queued"))


async def waits_under(
    docket: Docket, key: str, *, cancelled: bool
) -> tuple[str, tuple[str, ...]] | None:
    """Return a task's last `when` and keys, if it ever waited.

    Args:
        docket: the docket.
        key: the task's key.
        cancelled: only if it is cancelled, and was not added again since.
    """
    run = docket.runs_key(key)
    async with docket.redis() as redis:
        note = await redis.hget(run, "limiter")
        if note is None or (cancelled and await redis.hget(run, "state") != b"cancelled"):
            return None
    when, *keys = note.decode().split(" ")
    return when, tuple(keys)


async def _evaluate(
    script: str, docket: Docket, key: str, when: datetime, *more: Any, state: str
) -> Any:
    keys = (docket.stream_key, docket.queue_key, docket.parked_task_key(key), docket.runs_key(key))
    event = json.dumps({"type": "state", "key": key, "state": state})
    arguments = (key, when.isoformat(), repr(when.timestamp()), *more)
    async with docket.redis() as redis:
        call = cast(Any, redis).register_script(script)
        return await call(keys=keys, args=(*arguments, docket.key(f"state:{key}"), event))
