"""The memory store keeps the contract: S1 to S23, on both faces, on asyncio and trio."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from limiter_core.testing import AsyncStoreContract, FakeClock, SyncStoreContract
from limiter_memory import MemoryStore


class TestMemoryStore(SyncStoreContract, AsyncStoreContract):
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def store(self, clock: FakeClock) -> MemoryStore:
        return MemoryStore(clock=clock)

    @pytest.fixture
    def forget(self, store: MemoryStore) -> Callable[[], object]:
        return store.start_over_in_child
