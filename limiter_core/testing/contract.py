"""The contract suite: what any store must pass, on each of its faces.

For a store of your own, subclass and say how to make one on a fake clock. That is the whole test
module::

    from limiter_core.testing import AsyncStoreContract, FakeClock, SyncStoreContract

    class TestMyStore(SyncStoreContract, AsyncStoreContract):
        @pytest.fixture
        def store(self, clock: FakeClock) -> MyStore:
            return MyStore(clock=clock)

Each scenario is one test, named after the rules (S1 to S23 in `limiter_core.store`) that it checks.
Every test needs a new store. To let the async half run on trio, or on asyncio
only, override anyio's `anyio_backend` fixture.

Three fixtures may be overridden:

- `store`: must be. May be an async fixture, in the async half.
- `clock`: a `FakeClock`; a store whose time is kept elsewhere (a server) returns one here that
  takes its `advance` there.
- `forget`: a function that makes the store lose its leases and tickets, as a server does that is
  flushed. None, the default, skips the scenarios about it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from limiter_core.store import Store
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.scenario_runner import Scenario, run_async, run_sync
from limiter_core.testing.scenarios import SCENARIOS
from limiter_core.testing.store_under_test import StoreUnderTest

__all__ = ("AsyncStoreContract", "StoreFixtures", "SyncStoreContract")

_on_all_scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=str)


class StoreFixtures:
    """The fixtures of both halves of the contract."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock that the store goes by."""
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> Store:
        """Return a new store on this clock."""
        raise NotImplementedError(f"override the `store` fixture, to return a store on {clock}")

    @pytest.fixture
    def forget(self) -> Callable[[], object] | None:
        """Return how to make the store lose its data."""
        return None


class SyncStoreContract(StoreFixtures):
    """The contract, on a store's sync face."""

    @_on_all_scenarios
    def test_sync(
        self,
        scenario: Scenario,
        store: Store,
        clock: FakeClock,
        forget: Callable[[], object] | None,
    ) -> None:
        """Run a scenario in this thread."""
        tested = _under_test(scenario, store, clock, forget)
        if not store.capabilities.sync:
            pytest.skip("this store has no sync face")
        face = store.sync_face()
        face.on_notice(tested.notices.append)
        try:
            run_sync(scenario.steps(tested), face)
        finally:
            face.on_notice(None)


class AsyncStoreContract(StoreFixtures):
    """The contract, on a store's async face."""

    @pytest.mark.anyio
    @_on_all_scenarios
    async def test_async(
        self,
        scenario: Scenario,
        store: Store,
        clock: FakeClock,
        forget: Callable[[], object] | None,
    ) -> None:
        """Run a scenario in this event loop."""
        tested = _under_test(scenario, store, clock, forget)
        if not store.capabilities.asynchronous:
            pytest.skip("this store has no async face")
        face = store.async_face()
        face.on_notice(tested.notices.append)
        try:
            await run_async(scenario.steps(tested), face)
        finally:
            face.on_notice(None)


def _under_test(
    scenario: Scenario, store: Store, clock: FakeClock, forget: Callable[[], object] | None
) -> StoreUnderTest:
    reason = scenario.lacking(store.capabilities, can_forget=forget is not None)
    if reason is not None:
        pytest.skip(reason)
    return StoreUnderTest(clock, forget=forget)
