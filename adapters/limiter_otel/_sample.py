"""Which measurements and spans are made, where there are more than a process should pay for."""

from __future__ import annotations

from limiter_core.jitter import jitter
from limiter_core.system_clock import system_clock

PER_SECOND = 100
"""Up to so many in a second, all are made. Of holds that takes a thousandth of a core's time; of
waits, each with a span, one or two hundredths."""


class Sample:
    """All of what happens up to `PER_SECOND` times a second; beyond that, a random part.

    Each has the same chance within a second, long or short, so quantiles and means stay what they
    are. A histogram of the SDK takes as long as a hold in memory, a span four times as long.
    """

    __slots__ = ("_before", "_ends_at", "_seen")

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._seen = self._before = 0

    def takes(self) -> bool:
        """Whether this one is part of the sample."""
        now = system_clock.monotonic()
        if now >= self._ends_at:
            # What was seen in the last second, if that was the last second.
            self._before = self._seen if now < self._ends_at + 1 else 0
            self._seen, self._ends_at = 0, now + 1
        seen = self._seen = self._seen + 1
        before = self._before
        if before > PER_SECOND:
            most = seen if seen > before else before  # noqa: FURB136  (`max` is slower)
            return jitter.random() * most < PER_SECOND
        # A second of many after one of few: together at most twice as many as in others.
        return seen <= PER_SECOND or jitter.random() < (PER_SECOND / seen) ** 2
