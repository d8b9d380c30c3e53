"""A clock that moves when a test says so."""

from __future__ import annotations

import threading

__all__ = ("FakeClock",)


class FakeClock:
    """Tells the time in seconds when called, and stands still until it is advanced::

        clock = FakeClock()
        store = MemoryStore(clock=clock)
        clock.advance(31)       # a lease of 30 seconds that nobody renewed has ended

    May be read and advanced from any thread.

    Args:
        start: the first time it tells. The default lies where the real time does, so that fencing
            tokens (microseconds of the store's clock) have their real size.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"

    def advance(self, seconds: float) -> float:
        """Let time pass, and return the new time.

        Raises:
            ValueError: `seconds` is negative: a monotonic clock does not go back.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock goes forward, by zero or more seconds, got {seconds!r}")
        with self._lock:
            self._now += seconds
            return self._now
