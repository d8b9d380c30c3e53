"""A heap whose members can leave from the middle: O(log n) to enter and leave, O(1) to look.

And O(1) for members that enter in the order of their ranks, as most do. They stand in a row beside
the heap: to keep them in it would be a tenth of the time of a hand-off, and more in a long queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)

_COMPACT_FROM = 64


class Heap(Generic[Member]):
    """Members in ascending order of a rank. A member is in it at most once.

    A member that leaves is only marked; it is swept out when it reaches the top, or when the
    marked outnumber the living (so memory stays proportional to the living).
    """

    __slots__ = ("_others", "_row", "_ties", "live")

    def __init__(self) -> None:
        # An entry is [rank, tie-breaker, member]; the tie-breaker is unique, so members are
        # never compared. A member that left is None in its entry.
        self._row: deque[list[Any]] | None = None
        """Entries in ascending order: each entered behind the last. None before the first."""
        self._others: list[list[Any]] = []
        """The other entries, as a heap."""
        self.live: dict[Member, list[Any]] = {}
        """The members that are in, each with its entry; not to be changed from outside."""
        self._ties = 0

    def __len__(self) -> int:
        return len(self.live)

    def __contains__(self, member: Member) -> bool:
        return member in self.live

    def push(self, rank: Any, member: Member) -> None:
        """Let a member in."""
        self._ties += 1
        entry = self.live[member] = [rank, self._ties, member]
        row = self._row
        if row is None:
            self._row = deque((entry,))
        elif not row or row[-1] < entry:
            row.append(entry)
        else:
            heapq.heappush(self._others, entry)

    def pop_first(self) -> None:
        """Let the member leave that `first` has just returned."""
        row, others = self._row, self._others
        if row and not (others and others[0] < row[0]):
            del self.live[row.popleft()[2]]
        else:
            del self.live[heapq.heappop(others)[2]]
        if not self.live:
            self._forget_all()

    def remove(self, member: Member) -> bool:
        """Let a member leave; whether it was there."""
        entry = self.live.pop(member, None)
        if entry is None:
            return False
        entry[2] = None
        if not self.live:
            self._forget_all()
            return True
        row, others = self._row or (), self._others
        if len(row) + len(others) > max(_COMPACT_FROM, 2 * len(self.live)):
            self._row = deque(entry for entry in row if entry[2] is not None)
            self._others = [entry for entry in others if entry[2] is not None]
            heapq.heapify(self._others)
        return True

    def first(self) -> Member | None:
        """Return the member of the lowest rank, or None."""
        row, others = self._row, self._others
        while row and row[0][2] is None:
            row.popleft()
        while others and others[0][2] is None:
            heapq.heappop(others)
        if row and not (others and others[0] < row[0]):
            first: Member = row[0][2]
            return first
        return others[0][2] if others else None

    def first_rank(self) -> Any:
        """Return the lowest rank, or None."""
        first = self.first()
        return None if first is None else self.live[first][0]

    def _forget_all(self) -> None:
        """Keep no memory for members: none is in."""
        self._row = None
        self._others.clear()

    def smallest(self, count: int) -> list[Member]:
        """Return the `count` members of the lowest ranks, ascending."""
        return [entry[2] for entry in heapq.nsmallest(count, self.live.values())]
