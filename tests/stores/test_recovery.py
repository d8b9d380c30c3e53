"""To mend a memory store that is whole changes nothing: it may be done before each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from limiter_core.requests import Answer, Request
from limiter_core.testing import FakeClock, StoreMachine, SyncStoreContract
from limiter_memory import MemoryStore
from limiter_memory._machine import Machine
from limiter_memory._recovery import rebuilt

R = TypeVar("R")


class MendedStore(MemoryStore):
    """Makes all that can be derived anew before each step."""

    def acquire(self, request: Request) -> Answer:
        self._rebuild()
        return super().acquire(request)

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        self._rebuild()
        return super().release(lease_id, keys)

    def _step(self, step: Callable[[Machine, int], R]) -> R:
        self._rebuild()
        return super()._step(step)

    def _rebuild(self) -> None:
        table = self._machine.table
        if len(table.holders) + len(table.tickets) > 300:
            return  # enough is enough
        with self._lock:
            self._machine.table = rebuilt(self._machine.table)


class TestContract(SyncStoreContract):
    @pytest.fixture
    def store(self, clock: FakeClock) -> MemoryStore:
        return MendedStore(clock=clock)

    @pytest.fixture
    def forget(self, store: MemoryStore) -> Callable[[], object]:
        return store.start_over_in_child


class MendedMachine(StoreMachine):
    """Whole and mended, side by side with the model."""

    def make_stores(self, clock):  # type: ignore[no-untyped-def]
        return [MendedStore(clock=clock).sync_face()]


TestMendedStore = pytest.mark.exhaustive(pytest.mark.timeout(300)(MendedMachine.TestCase))
TestMendedStore.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
