"""The store protocol for event loops. `limiter_core.store` has the rules, and that for threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request


class AsyncStore(Protocol):
    """A store's operations, for the event loop: `SyncStore`'s, awaited. The rules are the same."""

    def now(self) -> float:
        """Return the local clock on which deadlines count: seconds, monotonic, any start."""
        ...

    async def acquire(self, request: Request) -> Answer:
        """Ask for slots; see `SyncStore.acquire`.

        A cancelled acquire may still be carried out: the caller releases its id to be sure.
        """
        ...

    async def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove a lease or a ticket; see `SyncStore.release`, and `sure_release`."""
        ...

    async def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        """Remove the lease of a job if this claimant has it; see `SyncStore.release_claim`."""
        ...

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        """Have it released without waiting, with or without a loop; see `SyncStore.abandon`."""
        ...

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        """Renew a lease no more; see `SyncStore.let_expire`."""
        ...

    async def renew(self, ids: Sequence[str]) -> Renewal:
        """Start lease times again; see `SyncStore.renew`."""
        ...

    async def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove a ticket that was not claimed; see `SyncStore.withdraw`."""
        ...

    async def evict(self, lease_id: str) -> bool:
        """Take a slot back from a holder; see `SyncStore.evict`."""
        ...

    async def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """End the waiting of a ticket; see `SyncStore.evict_waiter`."""
        ...

    async def sweep(self, presence: Presence | None = None) -> None:
        """Reap and serve durable tickets; see `SyncStore.sweep`."""
        ...

    async def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        """Return the state of a key; see `SyncStore.inspect`."""
        ...

    def keys(
        self, *, after_slice: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[str]:
        """Yield the keys in use; see `SyncStore.keys`. What `after_slice` returns is awaited."""
        ...

    async def set_limit(self, key: str, limit: int) -> None:
        """Override the declared limits; see `SyncStore.set_limit`."""
        ...

    async def reset_limit(self, key: str) -> None:
        """Return to the declared limits."""
        ...

    async def pause(self, key: str) -> None:
        """Admit no call until `resume`."""
        ...

    async def resume(self, key: str) -> None:
        """End a pause."""
        ...

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have notices of durable tickets sent to `callback`; see `SyncStore.on_notice`."""
        ...

    async def aclose(self) -> None:
        """Give up connections; see `SyncStore.close`."""
        ...
