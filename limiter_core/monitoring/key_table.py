"""What is known of each key: its status, its history, and whether it is to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import replace

from limiter_core.monitoring.hand_offs import HandOffs
from limiter_core.monitoring.history import BUCKET, BUCKETS, History
from limiter_core.monitoring.key_status import KeyStatus, status_of
from limiter_core.requests import KeySnapshot

__all__ = ("KeyTable",)

LINGER = 30.0
"""Seconds that a key stays listed after its last use: one that is used every few seconds stays."""

REMEMBERED = BUCKET * BUCKETS
"""Seconds that the history of a key is kept after its last use."""

UNREADABLE = 30.0
"""Seconds after which a key that the store cannot read is looked at again."""


class _Entry:
    __slots__ = ("hand_offs", "history", "look_after", "snapshot", "status", "used_at")

    def __init__(self, now: float) -> None:
        self.status: KeyStatus | None = None
        self.snapshot: KeySnapshot | None = None
        """The last one, while the key is watched."""
        self.history = History()
        self.hand_offs = HandOffs()
        self.used_at = now
        self.look_after = now

    def is_listed(self, now: float) -> bool:
        """Whether the key is in use as far as was seen, or was within `LINGER` seconds."""
        in_demand = self.status is not None and self.status.in_demand
        return in_demand or now - self.used_at < LINGER


class KeyTable:
    """The keys of a store, as they were last seen. Bounded: `most` keys at a time.

    Args:
        most: keys that are known at once. A key beyond takes the place of one that nobody uses, or
            is left out.

    Attributes:
        left_out: keys of the last search that found no place.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[str, _Entry] = {}
        self._left_out: set[str] = set()
        self.left_out = 0

    # -- what a search finds -----------------------------------------------------------------------

    def found(self, key: str, now: float) -> None:
        """Note that a search found a key in use."""
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._most and not self._make_room(now):
                self._left_out.add(key)
                return
            entry = self._entries[key] = _Entry(now)
        elif not entry.is_listed(now):
            entry.look_after = now
        entry.used_at = now

    def searched(self) -> None:
        """Note that a search has seen all keys."""
        self.left_out, self._left_out = len(self._left_out), set()

    def _make_room(self, now: float) -> bool:
        unlisted = [key for key, each in self._entries.items() if not each.is_listed(now)]
        if not unlisted:
            return False
        # A share of them at once, so that the next ones need not search again.
        share = max(1, len(unlisted) // 8)
        for key in heapq.nsmallest(share, unlisted, key=lambda key: self._entries[key].used_at):
            del self._entries[key]
        return True

    # -- looks -------------------------------------------------------------------------------------

    def due(self, now: float, most: int, first: Collection[str]) -> list[str]:
        """Return the keys to look at now: those of `first`, then those that were seen longest ago.

        Args:
            now: the time.
            most: so many at the most.
            first: keys that are watched; also those that are not known.
        """
        wanted = list(first)[:most]
        listed = [
            (entry.status.looked_at if entry.status else -1.0, key)
            for key, entry in self._entries.items()
            if entry.look_after <= now and key not in first and entry.is_listed(now)
        ]
        room = most - len(wanted)
        if len(listed) > room:
            listed = heapq.nsmallest(room, listed)
        return wanted + [key for _, key in listed]

    def seen(self, snapshot: KeySnapshot, now: float, *, watched: bool) -> None:
        """Note a snapshot.

        Args:
            snapshot: of a key.
            now: when it was taken.
            watched: whether the snapshot is to be kept, too.
        """
        entry = self._entries.get(snapshot.key)
        if entry is None:
            if not watched:
                return  # it had to make room meanwhile
            entry = self._entries[snapshot.key] = _Entry(now)
        hand_offs = entry.hand_offs.note(now, snapshot)
        status = status_of(snapshot, looked_at=now, hand_offs=hand_offs, before=entry.status)
        entry.status, entry.snapshot = status, snapshot if watched else None
        entry.look_after = now
        if status.in_demand:
            entry.used_at = now
        entry.history.note(now, status.in_use, status.waiting)

    def not_readable(self, key: str, why: str, now: float) -> None:
        """Note that the store could not read a key's records."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.look_after = now + UNREADABLE
        before = entry.status
        if before is None:
            nothing = KeySnapshot(key, 0, 0, 0, False, None, (), (), ())
            before = status_of(nothing, looked_at=now, hand_offs=0, before=None)
        entry.status = replace(before, unreadable=why, looked_at=now)
        entry.snapshot = None

    def forget_old(self, now: float) -> None:
        """Forget the keys whose history is over."""
        for key, entry in list(self._entries.items()):
            if now - entry.used_at >= REMEMBERED and not entry.is_listed(now):
                del self._entries[key]

    # -- what viewers see --------------------------------------------------------------------------

    def statuses(self, now: float) -> Iterator[KeyStatus]:
        """Yield the keys in use, and those that were a moment ago."""
        for entry in self._entries.values():
            if entry.status is not None and entry.is_listed(now):
                yield entry.status

    def unseen(self) -> bool:
        """Whether keys were found that have not been looked at yet."""
        return any(entry.status is None for entry in self._entries.values())

    def status(self, key: str) -> KeyStatus | None:
        """Return the status of a key; None if it was not seen in the last 15 minutes."""
        entry = self._entries.get(key)
        return None if entry is None else entry.status

    def snapshot(self, key: str) -> KeySnapshot | None:
        """Return the last snapshot of a watched key."""
        entry = self._entries.get(key)
        return None if entry is None else entry.snapshot

    def history(self, key: str) -> History | None:
        """Return the history of a key; None if it was not seen in the last 15 minutes."""
        entry = self._entries.get(key)
        return None if entry is None else entry.history

    def __len__(self) -> int:
        return len(self._entries)
