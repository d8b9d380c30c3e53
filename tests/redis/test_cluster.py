"""The store in a cluster: the contract, one slot per step, even use of the nodes, wake-ups."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from limiter_core import ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_core.testing import AsyncStoreContract, RecordingListener, Scenario, SyncStoreContract
from limiter_redis import RedisStore

from ._clusters import FAKED, Cluster, ClusterClock, counted, flush
from ._processes import Worker
from ._tools import until, until_now

PER_CUSTOMER = ConcurrencyLimit("customer", max_concurrent=1)


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    flush(running_cluster)
    yield running_cluster
    left = [name for each in running_cluster.primaries() for name in each.keys_without_expiry()]
    assert not [name for name in left if "fake-time" not in name], left


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url)
    yield store
    store.close()


class OnACluster:
    @pytest.fixture
    def clock(self, cluster: Cluster) -> ClusterClock:
        return ClusterClock(cluster, "{limiter:contract}")

    @pytest.fixture
    def forget(self, cluster: Cluster, clock: ClusterClock) -> Callable[[], object]:
        def lose_everything() -> None:
            flush(cluster)
            clock.write()

        return lose_everything


def hears(store: RedisStore, scenario: Scenario) -> bool:
    """Whether a process that is to hear of something has its ears open already."""
    if "RecordingListener" not in scenario.play.__code__.co_names:
        return True
    store.keeper.ensure_running()
    store.keeper.heed("contract/a")  # type: ignore[attr-defined]
    return store.keeper.hears("contract/a")  # type: ignore[attr-defined,no-any-return]


class TestContractInThreads(OnACluster, SyncStoreContract):
    @pytest.fixture
    def store(
        self, cluster: Cluster, clock: ClusterClock, scenario: Scenario
    ) -> Iterator[RedisStore]:
        store = RedisStore(cluster.url, script=FAKED)
        until_now(lambda: hears(store, scenario), "the keeper listens")
        yield store
        for key in list(store.sync_face().keys()):  # what an operator set has no expiry
            store.sync_face().reset_limit(key)
            store.sync_face().resume(key)
        store.close()


class TestContractInAnEventLoop(OnACluster, AsyncStoreContract):
    @pytest.fixture
    async def store(
        self, cluster: Cluster, clock: ClusterClock, scenario: Scenario
    ) -> AsyncIterator[RedisStore]:
        store = RedisStore(cluster.url, script=FAKED)
        until_now(lambda: hears(store, scenario), "the keeper listens")
        yield store
        async for key in store.async_face().keys():
            await store.async_face().reset_limit(key)
            await store.async_face().resume(key)
        await store.aclose()
