"""When to try again: the one policy for all that is repeated."""

from __future__ import annotations

from limiter_core.jitter import jitter

__all__ = ("backoff",)

_DOUBLINGS = 16


def backoff(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after so many failures in a row, before this one.

    Exponential, with equal jitter (half of it is random): callers that fail together try apart.

    Args:
        failures: 0 after the first failure.
        first: seconds after that, at the most.
        longest: seconds at the most.
    """
    pause: float = min(longest, first * 2.0 ** min(failures, _DOUBLINGS))
    return pause * jitter.uniform(0.5, 1.0)
