"""What a call does next that was not granted: wait, ask again, or give up; without I/O."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from limiter_core._call import Call
from limiter_core._refusals import refusal_error, wait_timeout
from limiter_core._retry_advice import RetryAdvice
from limiter_core.backoff import backoff
from limiter_core.errors import ConfigurationError, StoreUnavailable
from limiter_core.requests import Held, Loss, Mode, Queued, Refused, Replaced

_FIRST_RETRY = 0.05
_LAST_RETRY = 2.0


def patience(
    call: Call,
    answer: Queued | Refused | Replaced | Held | StoreUnavailable,
    deadline: float | None,
    around: Sequence[Call],
    advice: RetryAdvice,
) -> float:
    """Decide whether a call that was not granted waits on.

    Args:
        call: the call.
        answer: the last answer of the store; or that it could not be reached.
        deadline: when the caller's patience ends, on the call's clock; None for never.
        around: the calls of the same task or thread in whose blocks this one is made.
        advice: after what time to try again if it gets no slot.

    Returns:
        Seconds to wait for news before asking again, `math.inf` for as long as it takes.

    Raises:
        LimiterError: the call was refused, timed out or superseded, would wait for itself, or the
            store stayed away. Unless `call.settled`, the store may know of it: give it back.
    """
    left = math.inf if deadline is None else deadline - call.now()
    if isinstance(answer, Queued):
        call.order = answer.order
        call.queued = answer
        call.failures, call.trouble = 0, None
        if around:
            _refuse_self_deadlock(answer, around)
        if left <= 0:
            raise wait_timeout(call.demands, answer, advice, call.now())
        return left if answer.look_again is None else min(left, answer.look_again)
    if isinstance(answer, StoreUnavailable):
        late = isinstance(answer.__cause__, TimeoutError)
        if left <= 0 and late and call.queued is not None and not call.failures:
            # It was queued to the end; only the last answer did not come in time.
            raise wait_timeout(call.demands, call.queued, advice, call.now()) from answer
        if left <= 0 or call.request.mode is not Mode.WAIT:
            # What was cut off by the caller's patience does not say why the store is away.
            trouble, call.trouble = call.trouble, None  # else the two are in a cycle
            raise trouble if late and trouble is not None else answer
        pause = backoff(call.failures, _FIRST_RETRY, _LAST_RETRY)
        call.failures += 1
        call.trouble = None if late else answer
        return min(left, pause)
    # The store keeps the refusal of a ticket, for a waiter that asks: it is released.
    call.settled = call.order is None
    raise refusal_error(answer, call.demands, advice, call.now())


def without_frames(error: StoreUnavailable) -> StoreUnavailable:
    """Return an error that is kept while its call waits on, without the frames that raised it.

    They refer to those of the call, which keep the error: with a cycle, the task that made the call
    would stay after its end, until the garbage collector runs.

    It is to be called where the error is handled no more: an exception that is handled there is the
    caller's own, and keeps its frames. The error was raised in its context.
    """
    handled = sys.exception()
    each: BaseException | None = error
    while each is not None and each is not handled and each.__traceback__ is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def self_deadlock(key: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"this task would wait for itself: {why} of {key!r}. Release that lease first, take both "
        "limits in one hold, or give them different keys"
    )


def holds(call: Call) -> bool:
    """Whether a call has its slots."""
    return not call.closed and (call.loss is None or call.loss is Loss.PREEMPTED)


def _refuse_self_deadlock(answer: Queued, around: Sequence[Call]) -> None:
    # All that is in use there is held by the caller: the waiters before it wait for that, too.
    held = sum(
        demand.cost
        for call in around
        if holds(call)
        for demand in call.demands
        if demand.key == answer.key
    )
    # A paused key (limit 0) waits for its operator, not for its holders.
    if answer.max_concurrent and answer.in_use and held >= answer.in_use:
        raise self_deadlock(answer.key, f"it already holds all {held} slots in use")
