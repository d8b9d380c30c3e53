"""The memory store for event loops."""

from __future__ import annotations

from collections.abc import Callable

from limiter_core.awaited import AwaitedStore
from limiter_core.policies import Change, Policy, PolicyStore
from limiter_core.store import SyncStore


class AsyncMemoryStore(AwaitedStore):
    """`MemoryStore`, awaited. Nothing here suspends, so nothing can be cancelled halfway."""

    __slots__ = ("_policies", "now")

    def __init__(self, store: SyncStore, policies: PolicyStore, clock: Callable[[], float]) -> None:
        super().__init__(store)
        self._policies = policies
        self.now = clock  # type: ignore[method-assign]

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._store.let_expire(lease_id, claimant)

    async def change_policy(self, change: Change) -> Change:
        return self._policies.change_policy(change)

    async def policies(self) -> tuple[Policy, ...]:
        return self._policies.policies()

    async def log_change(self, change: Change) -> Change:
        return self._policies.log_change(change)

    async def changes(self) -> tuple[Change, ...]:
        return self._policies.changes()
