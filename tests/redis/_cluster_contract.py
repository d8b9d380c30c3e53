"""The contract of a store, on a cluster: fixtures for each kind of namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import ClassVar

import pytest

from limiter_core.testing import AsyncStoreContract, Scenario, SyncStoreContract
from limiter_redis import RedisStore

from ._clusters import FAKED, Cluster, ClusterClock, flush
from ._tools import until_now


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A cluster for the tests of a module."""
    cluster = Cluster()
    yield cluster
    cluster.close()


class OnACluster:
    """What both worlds have in common.

    Attributes:
        namespace: of the store. No other test has it: a lease renewer may outlive its test.
        tags: the hash tags of the keys from which the script reads the time.
    """

    namespace: ClassVar[str]
    tags: ClassVar[tuple[str, ...]]

    @pytest.fixture
    def clock(self, cluster: Cluster) -> ClusterClock:
        return ClusterClock(cluster, *self.tags)

    @pytest.fixture
    def forget(self, cluster: Cluster, clock: ClusterClock) -> Callable[[], object]:
        def lose_everything() -> None:
            flush(cluster)
            clock.write()

        return lose_everything

    def new_store(self, cluster: Cluster, scenario: Scenario) -> RedisStore:
        """Return a store that receives messages, if the scenario waits for some."""
        store = RedisStore(cluster.url, namespace=self.namespace, script=FAKED)
        until_now(lambda: receives(store, scenario), "the lease renewer receives messages")
        return store


class ContractInThreads(OnACluster, SyncStoreContract):
    """The contract for threads."""

    @pytest.fixture
    def store(
        self, cluster: Cluster, clock: ClusterClock, scenario: Scenario
    ) -> Iterator[RedisStore]:
        store = self.new_store(cluster, scenario)
        yield store
        for key in list(store.sync_face().keys()):  # what an operator set has no expiry
            store.sync_face().reset_limit(key)
            store.sync_face().resume(key)
        store.session.tracker.requests.clear()  # a scenario may end while it holds
        store.close()


class ContractInAnEventLoop(OnACluster, AsyncStoreContract):
    """The contract for event loops."""

    @pytest.fixture
    async def store(
        self, cluster: Cluster, clock: ClusterClock, scenario: Scenario
    ) -> AsyncIterator[RedisStore]:
        store = self.new_store(cluster, scenario)
        yield store
        async for key in store.async_face().keys():
            await store.async_face().reset_limit(key)
            await store.async_face().resume(key)
        store.session.tracker.requests.clear()
        await store.aclose()


def receives(store: RedisStore, scenario: Scenario) -> bool:
    """Whether a store that is to receive something is subscribed already."""
    if "RecordingListener" not in scenario.steps.__code__.co_names:
        return True
    store.session.renewer.ensure_running()
    store.session.renewer.watch("contract/a")  # type: ignore[attr-defined]
    return store.session.renewer.receives("contract/a")  # type: ignore[attr-defined,no-any-return]
