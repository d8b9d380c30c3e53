"""How often slots of a key passed from a holder to a waiter, as far as two looks can show it."""

from __future__ import annotations

from collections import deque

from limiter_core.requests import KeySnapshot

__all__ = ("MINUTE", "HandOffs")

MINUTE = 60.0


class HandOffs:
    """Counts the hand-offs of one key: requests that waited at one look and hold at a later one.

    A lower bound. What a look does not show is not counted: a slot that was taken and given back
    between two looks, and waiters behind the first `KeySnapshot.WAITERS_SHOWN`.
    """

    __slots__ = ("_seen", "_waiting")

    def __init__(self) -> None:
        self._waiting: frozenset[str] = frozenset()
        self._seen: deque[tuple[float, int]] = deque()
        """Times of looks, and how many hand-offs each showed; of the last minute."""

    def note(self, now: float, snapshot: KeySnapshot) -> int:
        """Note a look, and return the hand-offs seen in the last minute."""
        count = 0
        if self._waiting:
            count = sum(1 for holder in snapshot.holders if holder.id in self._waiting)
        if count:
            self._seen.append((now, count))
        self._waiting = frozenset(waiter.id for waiter in snapshot.waiters)
        return self.count(now)

    def count(self, now: float) -> int:
        """Return the hand-offs seen in the last minute."""
        while self._seen and self._seen[0][0] <= now - MINUTE:
            self._seen.popleft()
        return sum(count for _, count in self._seen)
