"""How often slots of a key passed from a holder to a waiter, as far as two looks can show it."""

from __future__ import annotations

from collections import deque

from limiter_core.requests import KeySnapshot

__all__ = ("MINUTE", "HandOffs")

MINUTE = 60.0


class HandOffs:
    """Counts the hand-offs of one key.

    A grant since the last look was one if its holder waited at that look; or if it came while
    a call waited that still does: newcomers never overtake, so the holder had been in line, too.

    A lower bound. What a look does not show is not counted: a slot that was taken and given back
    between two looks, and waiters behind the first `KeySnapshot.WAITERS_SHOWN`.
    """

    __slots__ = ("_seen", "_token", "_waiting")

    def __init__(self) -> None:
        self._token: int | None = None
        """The highest fencing token of the last look; None before the first."""
        self._waiting: frozenset[str] = frozenset()
        self._seen: deque[tuple[float, int]] = deque()
        """Times of looks, and how many hand-offs each showed; of the last minute."""

    def note(self, now: float, snapshot: KeySnapshot) -> int:
        """Note a look, and return the hand-offs seen in the last minute."""
        oldest = max((waiter.waiting_for for waiter in snapshot.waiters), default=0.0)
        last = self._token
        new = [each for each in snapshot.holders if last is not None and each.fencing_token > last]
        count = sum(each.id in self._waiting or oldest > each.held_for for each in new)
        if count:
            self._seen.append((now, count))
        tokens = [holder.fencing_token for holder in snapshot.holders]
        self._token = max([*tokens, self._token or 0])
        self._waiting = frozenset(waiter.id for waiter in snapshot.waiters)
        return self.count(now)

    def count(self, now: float) -> int:
        """Return the hand-offs seen in the last minute."""
        while self._seen and self._seen[0][0] <= now - MINUTE:
            self._seen.popleft()
        return sum(count for _, count in self._seen)
