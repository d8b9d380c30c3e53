"""A set of names in the store whose members expire.

Each member is a lease on one key that no process renews, so `limiter ls` shows them as its holders.
"""

from __future__ import annotations

from limiter_core.requests import NO_LIMIT, Demand, Granted, Held, Mode, Request
from limiter_core.store import SyncStore


class ExpiringSet:
    """The members under one key.

    All methods raise StoreError if the store cannot be used.

    Args:
        store: where they are kept.
        key: of the set.
        seconds: for which a member is kept; with 0, the set stays empty.
    """

    def __init__(self, store: SyncStore, key: str, seconds: float) -> None:
        self._store = store
        self._key = key
        self._seconds = seconds

    def add(self, member: str) -> None:
        """Add a member, or keep one that is there for the full time again."""
        if self._seconds > 0:
            self._store.acquire(self._request(member, Mode.TRY))

    def add_for(self, member: str, owner: str) -> bool:
        """Add a member for an owner; False if it is there for another one."""
        if self._seconds <= 0:
            return True
        request = self._request(member, Mode.TRY)._replace(payload=b"", claimant=owner)
        return isinstance(self._store.acquire(request), Granted)

    def remove_of(self, member: str, owner: str) -> None:
        """Remove a member, if it is there for this owner."""
        self._store.release_claim(member, [self._key], owner)

    def remove(self, member: str) -> None:
        """Remove a member, if it is there."""
        if self._seconds > 0:
            self._store.release(member, [self._key])

    def age(self, member: str) -> float | None:
        """Return how many seconds ago a member was last added; None if it is not there."""
        if self._seconds <= 0:
            return None
        answer = self._store.acquire(self._request(member, Mode.LOOK))
        if not isinstance(answer, Granted | Held):
            return None
        return 0.0 if answer.expires_in is None else max(self._seconds - answer.expires_in, 0.0)

    def ages(self) -> dict[str, float]:
        """Return all members, and how many seconds ago each was first added."""
        return {holder.id: holder.held_for for holder in self._store.inspect(self._key).holders}

    def _request(self, member: str, mode: Mode) -> Request:
        return Request(member, (Demand(self._key, NO_LIMIT),), lease=self._seconds, mode=mode)
