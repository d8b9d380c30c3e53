"""The async face of a store whose operations never wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request
from limiter_core.store import SyncStore

__all__ = ("AwaitedStore",)


class AwaitedStore:
    """A sync store, awaited: for stores that live in this process, where no operation suspends.

    Args:
        store: carries everything out, in the event loop's thread.
    """

    __slots__ = ("_store",)

    def __init__(self, store: SyncStore) -> None:
        self._store = store

    def now(self) -> float:
        """Return the store's clock."""
        return self._store.now()

    async def acquire(self, request: Request) -> Answer:
        """Ask for slots."""
        return self._store.acquire(request)

    async def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove a lease or a ticket."""
        return self._store.release(lease_id, keys)

    async def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        """Remove the lease of a job if this claimant has it."""
        return self._store.release_claim(lease_id, keys, claimant)

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        """Have a lease or a ticket removed."""
        self._store.abandon(lease_id, keys, claimant)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        """Renew a lease no more."""
        self._store.let_expire(lease_id, claimant)

    async def renew(self, ids: Sequence[str]) -> Renewal:
        """Start lease times again."""
        return self._store.renew(ids)

    async def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove a ticket that was not claimed."""
        return self._store.withdraw(ticket_id, keys)

    async def evict(self, lease_id: str) -> bool:
        """Take a slot from its holder."""
        return self._store.evict(lease_id)

    async def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """End the waiting of a ticket."""
        return self._store.evict_waiter(ticket_id, keys)

    async def sweep(self, presence: Presence | None = None) -> None:
        """Reap all that ended unnoticed."""
        self._store.sweep(presence)

    async def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        """Return the state of a key."""
        return self._store.inspect(key, deadline)

    async def keys(
        self,
        *,
        after_slice: Callable[[], Awaitable[None]] | None = None,  # noqa: ARG002  (one slice)
    ) -> AsyncIterator[str]:
        """Yield the keys in use."""
        for key in self._store.keys():
            yield key

    async def set_limit(self, key: str, limit: int) -> None:
        """Override the declared limits."""
        self._store.set_limit(key, limit)

    async def reset_limit(self, key: str) -> None:
        """Return to the declared limits."""
        self._store.reset_limit(key)

    async def pause(self, key: str) -> None:
        """Admit no call until `resume`."""
        self._store.pause(key)

    async def resume(self, key: str) -> None:
        """End a pause."""
        self._store.resume(key)

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have notices of durable tickets sent to `callback`."""
        self._store.on_notice(callback)

    async def aclose(self) -> None:
        """Give up what the store has."""
        self._store.close()
