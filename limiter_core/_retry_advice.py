"""After what time a call that got no slot should try again."""

from __future__ import annotations

from limiter_core._hold_times import HoldTimes, expected_wait, hold_times
from limiter_core._names import name_at
from limiter_core.jitter import jitter
from limiter_core.requests import Demand

__all__ = ("RetryAdvice",)

MAX_KEYS = 1000
"""Keys for which the last advice is remembered."""

_JITTER = 0.01, 0.03
"""Of the mean hold: what is added, so that a call comes a moment after the slot is free."""
_DEVIATIONS = 2
"""How many times the mean deviation is added: most holds are over by then."""
_SPREAD = 4
"""Mean holds over which the calls of one key are spread: more of them will hardly all come back."""


class RetryAdvice:
    """Advises calls that were refused, each on a key another moment.

    Calls that one hold kept out would otherwise all come back at its end, and all but one in vain.
    Those of other processes, and of other limiters, are not known here.

    Args:
        times: the hold times of this process.
    """

    def __init__(self, times: HoldTimes = hold_times) -> None:
        self._times = times
        self._last: dict[str, float] = {}

    def after(
        self,
        demands: tuple[Demand, ...],
        key: str,
        slots: int,
        now: float,
        *,
        held_for: float | None = None,
        ahead: int = 0,
    ) -> float | None:
        """Return the seconds until it should try again.

        Args:
            demands: of the call.
            key: the key that is full.
            slots: that it has, 0 while it is paused.
            now: on the clock of the call.
            held_for: seconds since the oldest grant there; None if that is not known.
            ahead: how many wait there.

        Returns:
            None without a mean, and while the key is paused.
        """
        time = self._times.of(name_at(demands, key))
        if time is None or slots == 0:
            return None
        wait = expected_wait(time.mean, slots, held_for, ahead)
        margin = _DEVIATIONS * time.deviation + jitter.uniform(*_JITTER) * time.mean
        at = now + wait + margin
        after_last = self._last.get(key, 0.0) + time.mean / slots + margin
        if at < after_last < at + _SPREAD * time.mean:
            at = after_last
        if len(self._last) >= MAX_KEYS:
            self._last.clear()
        self._last[key] = at
        return at - now
