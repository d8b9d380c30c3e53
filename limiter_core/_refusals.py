"""From the refusals of a store to the errors that callers get."""

from __future__ import annotations

from typing import Protocol

from limiter_core._names import name_at
from limiter_core._retry_advice import RetryAdvice
from limiter_core.errors import (
    ConfigurationError,
    Evicted,
    LimiterError,
    LimitReached,
    QueueFull,
    Superseded,
    WaitTimeout,
)
from limiter_core.requests import Demand, Held, Refusal, Refused, Replaced

_ERRORS = {Refusal.QUEUE_FULL: QueueFull, Refusal.EVICTED: Evicted}


class Waited(Protocol):
    """The last answer to a request that waited, or what is known of a job that did."""

    @property
    def key(self) -> str:
        """Where it waited."""
        ...

    @property
    def max_concurrent(self) -> int:
        """The limit there."""
        ...

    @property
    def in_use(self) -> int:
        """The slots in use there."""
        ...

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """All keys that block it; empty if that is `key` alone."""
        ...


def wait_timeout(
    demands: tuple[Demand, ...], last: Waited, advice: RetryAdvice, now: float
) -> WaitTimeout:
    """Return the error for a request that waited to its end.

    Args:
        demands: what was requested.
        last: where it waited.
        advice: after what time to try again.
        now: on the clock of the call.
    """
    after = advice.after(demands, last.key, last.max_concurrent, now)
    name = name_at(demands, last.key)
    return WaitTimeout(last.key, last.max_concurrent, last.in_use, after, name, last.blocked_by)


def refusal_error(
    answer: Refused | Replaced | Held,
    demands: tuple[Demand, ...] = (),
    advice: RetryAdvice | None = None,
    now: float = 0.0,
) -> LimiterError:
    """Return the error for a refusal.

    Args:
        answer: the refusal.
        demands: what was requested, as far as it is known.
        advice: after what time to try again; None: it is not known what was requested.
        now: on the clock of the call.
    """
    if isinstance(answer, Replaced):
        return Superseded(answer.key, name_at(demands, answer.key))
    if isinstance(answer, Held):
        return ConfigurationError("a request's id must be new: this one holds a lease already")
    key, slots = answer.key, answer.max_concurrent
    if answer.reason is Refusal.COST:
        return ConfigurationError(
            f"the cost is above the limit of {slots} slots in force for {key!r}: such a call "
            "would wait for ever"
        )
    after = None
    if advice is not None and answer.reason is not Refusal.EVICTED:
        held_for, ahead = answer.held_for, answer.waiting
        after = advice.after(demands, key, slots, now, held_for=held_for, ahead=ahead)
    kind = _ERRORS.get(answer.reason, LimitReached)
    return kind(key, slots, answer.in_use, after, name_at(demands, key), answer.blocked_by)
