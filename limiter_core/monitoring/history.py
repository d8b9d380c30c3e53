"""The recent past of one key, in a bounded number of buckets."""

from __future__ import annotations

from array import array
from typing import NamedTuple

__all__ = ("BUCKET", "BUCKETS", "History", "Point")

BUCKET = 10.0
"""Seconds that a bucket stands for."""

BUCKETS = 90
"""Buckets of a history: 15 minutes."""

_MISSING = -1
_HIGHEST = 2**31 - 1


class Point(NamedTuple):
    """The most that was seen in `BUCKET` seconds.

    Attributes:
        in_use: slots in use.
        waiting: tickets in line.
    """

    in_use: int
    waiting: int


class History:
    """The last 15 minutes of one key: the most slots in use, and the longest line, per bucket."""

    __slots__ = ("_bucket", "_in_use", "_waiting")

    def __init__(self) -> None:
        self._in_use = array("i", [_MISSING]) * BUCKETS
        self._waiting = array("i", [_MISSING]) * BUCKETS
        self._bucket = 0
        """The number of the latest bucket, counted from the clock's zero."""

    def note(self, now: float, in_use: int, waiting: int) -> None:
        """Note what was seen at a time; times do not go back."""
        place = self._advance(now)
        self._in_use[place] = max(self._in_use[place], min(in_use, _HIGHEST))
        self._waiting[place] = max(self._waiting[place], min(waiting, _HIGHEST))

    def points(self, now: float) -> list[Point | None]:
        """Return the buckets up to a time, the oldest first; None where the key was not seen."""
        latest = int(now // BUCKET)
        found: list[Point | None] = []
        for bucket in range(latest - BUCKETS + 1, latest + 1):
            known = self._bucket - BUCKETS < bucket <= self._bucket
            place = bucket % BUCKETS
            if known and self._in_use[place] != _MISSING:
                found.append(Point(self._in_use[place], self._waiting[place]))
            else:
                found.append(None)
        return found

    def _advance(self, now: float) -> int:
        """Empty the buckets that have passed unseen; return the place of the present one."""
        bucket = max(int(now // BUCKET), self._bucket)
        for passed in range(max(self._bucket + 1, bucket - BUCKETS + 1), bucket + 1):
            self._in_use[passed % BUCKETS] = self._waiting[passed % BUCKETS] = _MISSING
        self._bucket = bucket
        return bucket % BUCKETS
