"""How long slots are held, by the names of limits; and what wait follows from that.

Each process measures its own holds, and keeps a mean for each name. Nothing of it is in a store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from limiter_core.requests import Demand

__all__ = ("HoldTime", "HoldTimes", "expected_wait", "hold_times")

MAX_NAMES = 1000
"""Names that are kept; beyond that, the one that came first is forgotten."""

_REMEMBERED = 10
"""Holds that make up a mean: of further ones, each has a tenth of the weight."""

_LEAST_LEFT = 0.05
"""Of the mean: a hold that is about as old as the mean is never expected to end at once."""


class HoldTime(NamedTuple):
    """How long the slots of a limit are held.

    Attributes:
        holds: that were measured, `_REMEMBERED` at most.
        mean: seconds; the last holds have the most weight.
        deviation: the mean difference from that, in seconds.
    """

    holds: int
    mean: float
    deviation: float


class HoldTimes:
    """The hold times of this process, by name. For any thread."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        # A value is replaced as a whole: of two threads at once, one may lose its hold.
        self._times: dict[str, HoldTime] = {}

    def note(self, demands: Iterable[Demand], held: float) -> None:
        """Note a hold that was released.

        Args:
            demands: what was held.
            held: seconds.
        """
        times = self._times
        for demand in demands:
            known = times.get(demand.name)
            if known is None:
                if len(times) >= MAX_NAMES:
                    times.pop(next(iter(list(times))), None)
                times[demand.name] = HoldTime(1, held, 0.0)
                continue
            holds, mean, deviation = known
            holds = min(holds + 1, _REMEMBERED)
            difference = held - mean
            mean += difference / holds
            deviation += (abs(difference) - deviation) / holds
            times[demand.name] = HoldTime(holds, mean, deviation)

    def of(self, name: str) -> HoldTime | None:
        """Return the hold time of a name, None if this process has released none."""
        return self._times.get(name)


hold_times = HoldTimes()
"""Those of this process."""


def expected_wait(mean: float, slots: int, held_for: float | None, ahead: int = 0) -> float:
    """Return the seconds until a slot is expected to be free for a call.

    Args:
        mean: the mean hold, in seconds.
        slots: that the key has.
        held_for: seconds since the oldest grant that is still held; None if that is not known.
        ahead: waiters that are served before.
    """
    slots = max(slots, 1)
    later = ahead * mean / slots
    if held_for is None:
        return mean / (slots + 1) + later  # as if the grants were spread evenly
    # One that is held for longer than the mean is expected to go on for as long again.
    return max(abs(mean - held_for), _LEAST_LEFT * mean) + later
