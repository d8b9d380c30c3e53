"""The changes that an operator can make: one model for forms and API, carried out by a limiter."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from limiter_core import Limiter
from limiter_core.keys import MAX_WHOLE_LENGTH

__all__ = ("ACTIONS", "Action", "Operation", "Outcome", "carry_out")

Action = Literal["set", "reset", "pause", "resume", "evict"]
ACTIONS: tuple[Action, ...] = ("set", "reset", "pause", "resume", "evict")


class Operation(BaseModel):
    """A change: of one key, of all keys of a name, or the eviction of a holder or waiter."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    key: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_WHOLE_LENGTH, description="The key, as it is listed."),
    ] = None
    name: Annotated[
        str | None,
        Field(min_length=1, description="In place of a key: the name of limits, for all keys."),
    ] = None
    limit: Annotated[
        StrictInt | str | None,
        Field(description='For "set": slots, 0 or more; of a name also a share, as "50%".'),
    ] = None
    lasts: Annotated[
        float | None,
        Field(gt=0, description="Of a name, for set and pause: seconds after which it ends."),
    ] = None
    id: Annotated[
        str | None, Field(min_length=1, description='For "evict": the lease or the ticket.')
    ] = None
    reason: Annotated[str, Field(max_length=500, description="Why, for the log.")] = ""
    by: Annotated[str, Field(max_length=200, description="Who, for the log.")] = ""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.key is None) == (self.name is None):
            raise ValueError("give a key or a name, and not both")
        return self


class Outcome(BaseModel):
    """What a change did."""

    done: Annotated[bool, Field(description="False: there was no such lease or ticket any more.")]
    message: Annotated[str, Field(description="What was done, for people.")]


async def carry_out(limiter: Limiter, action: Action, wanted: Operation) -> Outcome:
    """Make a change, which the store notes in its log.

    Raises:
        ConfigurationError, ValueError: something is missing or wrong.
        StoreError: the store fails.
    """
    if action == "evict":
        return await _evict(limiter, wanted)
    if wanted.id is not None:
        raise ValueError(f'an id is for "evict" only, got {wanted.id!r}')
    if wanted.limit is None and action == "set":
        raise ValueError("give the limit to set")
    if wanted.limit is not None and action != "set":
        raise ValueError(f'a limit is for "set" only, got {wanted.limit!r}')
    if wanted.name is not None:
        return await _change_name(limiter, action, wanted, wanted.name)
    if wanted.lasts is not None:
        raise ValueError(
            "only a change of a name can end by itself: give a name, or leave lasts out"
        )
    return await _change_key(limiter, action, wanted, str(wanted.key))


async def _change_key(limiter: Limiter, action: Action, wanted: Operation, key: str) -> Outcome:
    reason, by = wanted.reason or None, wanted.by or None
    if action == "set":
        limit = _whole(wanted.limit)
        await limiter.set_limit(key, limit, reason=reason, by=by)
        return Outcome(done=True, message=f"The limit of {key} is {limit} now.")
    if action == "reset":
        await limiter.reset_limit(key, reason=reason, by=by)
        return Outcome(done=True, message=f"{key} has the limit that its callers declare.")
    if action == "pause":
        await limiter.pause(key, reason=reason, by=by)
        return Outcome(done=True, message=f"{key} is paused: no call is admitted.")
    await limiter.resume(key, reason=reason, by=by)
    return Outcome(done=True, message=f"{key} is resumed.")


async def _change_name(limiter: Limiter, action: Action, wanted: Operation, name: str) -> Outcome:
    reason, by, lasts = wanted.reason or None, wanted.by or None, wanted.lasts
    time = "" if lasts is None else f" for {lasts:g} s"
    if lasts is not None and action in ("reset", "resume"):
        raise ValueError(f"{action} has no duration, got lasts={lasts:g}")
    if action == "set":
        limit = wanted.limit if wanted.limit is not None else ""
        await limiter.set_name_limit(name, limit, lasts=lasts, reason=reason, by=by)
        return Outcome(done=True, message=f"The limit of all keys of {name} is {limit}{time}.")
    if action == "reset":
        await limiter.reset_name_limit(name, reason=reason, by=by)
        return Outcome(done=True, message=f"All keys of {name} have the limits declared.")
    if action == "pause":
        await limiter.pause_name(name, lasts=lasts, reason=reason, by=by)
        return Outcome(done=True, message=f"All keys of {name} are paused{time}.")
    await limiter.resume_name(name, reason=reason, by=by)
    return Outcome(done=True, message=f"All keys of {name} are resumed.")


async def _evict(limiter: Limiter, wanted: Operation) -> Outcome:
    if wanted.id is None or wanted.key is None:
        raise ValueError("give the id of a lease or ticket, and its key")
    reason, by = wanted.reason or None, wanted.by or None
    # A call that was handed a slot and has not claimed it still waits.
    done = await limiter.evict_waiter(wanted.id, wanted.key, reason=reason, by=by)
    done = done or await limiter.evict(wanted.id, wanted.key, reason=reason, by=by)
    if done:
        return Outcome(done=True, message=f"{wanted.id} was evicted from {wanted.key}.")
    return Outcome(done=False, message=f"{wanted.id} neither holds nor waits any more.")


def _whole(limit: int | str | None) -> int:
    text = str(limit).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 100):
        raise ValueError(f"the limit of a key is a whole number of 0 or more, got {text[:50]!r}")
    return int(text)
