"""How long an answer is waited for: the one place that says so for both worlds.

A call of the store has its own bound, the `socket_timeout` of its URL or client. Where a caller's
patience ends before, that bounds it; but an answer always has a moment, since the last question of
a waiter is asked when the patience has ended.
"""

from __future__ import annotations

from redis.exceptions import TimeoutError as RedisTimeoutError

LAST_ANSWER = 0.15
"""Seconds that an answer has, at the least. With it a `timeout` is kept within 0.2 s."""


class NoAnswer(RedisTimeoutError, TimeoutError):
    """No answer came in time: the driver's error, and Python's."""


def or_no_answer(error: Exception, doing: str = "connecting to server") -> Exception:
    """Return an error; one without a text, as `asyncio.timeout` raises, with what was done."""
    return NoAnswer(f"Timeout {doing}") if type(error) is TimeoutError else error


def answer_by(deadline: float | None, now: float) -> float | None:
    """Return when an answer has to be there, None if only the store's own bound counts.

    Args:
        deadline: when the caller's patience ends, None for never.
        now: the time on the same clock.
    """
    return None if deadline is None else max(deadline, now + LAST_ANSWER)


def bounded(deadline: float | None, now: float, timeout: float) -> float:
    """Return when a call is given up that may take so many seconds, and has a deadline."""
    bound = now + timeout
    return bound if deadline is None or deadline > bound else deadline
