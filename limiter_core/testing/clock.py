"""A clock that a test advances."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

__all__ = ("FakeClock",)


class FakeClock:
    """Tells the time in seconds when called, and stands still until it is advanced::

        clock = FakeClock()
        store = MemoryStore(clock=clock)
        clock.advance(31)       # a lease of 30 seconds that was not renewed has ended

    With the memory store it moves all that a limiter counts: leases, `max_hold` and the `timeout`
    of calls, which are woken as it is advanced. May be read and advanced from any thread.

    Args:
        start: its time at the start. The default is near the real time, so that fencing
            tokens (microseconds of the store's clock) have their real size.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._followers: list[weakref.WeakMethod[Callable[[], object]]] = []

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
            now = self._now
            followers = [each for each in self._followers if each() is not None]
            self._followers = followers
        for each in followers:
            follow = each()
            if follow is not None:
                follow()
        return now

    def on_advance(self, follow: Callable[[], object]) -> None:
        """Have a method called after each advance, in the thread that advances the clock."""
        with self._lock:
            self._followers.append(weakref.WeakMethod(follow))
