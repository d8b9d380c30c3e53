"""A heap whose members can leave from the middle: O(log n) to enter and leave, O(1) to look."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)

_COMPACT_FROM = 64


class Heap(Generic[Member]):
    """Members in ascending order of a rank. A member is in it at most once.

    A member that leaves is only marked; it is swept out when it reaches the top, or when the
    marked outnumber the living (so memory stays proportional to the living).
    """

    __slots__ = ("_entries", "_ties", "live")

    def __init__(self) -> None:
        # An entry is [rank, tie-breaker, member]; the tie-breaker is unique, so members are
        # never compared. A member that left is None in its entry.
        self._entries: list[list[Any]] = []
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
        entry = [rank, self._ties, member]
        self.live[member] = entry
        heapq.heappush(self._entries, entry)

    def pop_first(self) -> None:
        """Let the member leave that `first` has just returned."""
        del self.live[heapq.heappop(self._entries)[2]]

    def remove(self, member: Member) -> bool:
        """Let a member leave; whether it was there."""
        entry = self.live.pop(member, None)
        if entry is None:
            return False
        entry[2] = None
        if len(self._entries) > _COMPACT_FROM and len(self._entries) > 2 * len(self.live):
            self._entries = [entry for entry in self._entries if entry[2] is not None]
            heapq.heapify(self._entries)
        return True

    def first(self) -> Member | None:
        """Return the member of the lowest rank, or None."""
        entries = self._entries
        while entries and entries[0][2] is None:
            heapq.heappop(entries)
        return entries[0][2] if entries else None

    def first_rank(self) -> Any:
        """Return the lowest rank, or None."""
        return self._entries[0][0] if self.first() is not None else None

    def smallest(self, count: int) -> list[Member]:
        """Return the `count` members of the lowest ranks, ascending."""
        return [entry[2] for entry in heapq.nsmallest(count, self.live.values())]
