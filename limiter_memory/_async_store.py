"""The memory store for event loops."""

from __future__ import annotations

from collections.abc import Callable

from limiter_core.awaited import AwaitedStore
from limiter_core.store import SyncStore


class AsyncMemoryStore(AwaitedStore):
    """`MemoryStore`, awaited. Nothing here suspends, so nothing can be cancelled halfway."""

    __slots__ = ("now",)

    def __init__(self, store: SyncStore, clock: Callable[[], float]) -> None:
        super().__init__(store)
        self.now = clock  # type: ignore[method-assign]

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._store.let_expire(lease_id, claimant)
