"""Processes that wait for each other report it, also if their keys are on different nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from redis.crc import key_slot

from limiter_core import SyncLimiter
from limiter_redis import RedisStore

from ._cluster_contract import running_cluster
from ._clusters import Cluster, flush
from ._processes import Worker
from ._servers import Server
from ._tools import until_now

__all__ = ("running_cluster",)  # a fixture: pytest finds it by its name

Start = Callable[..., Worker]
ENDS_OF_LEASES = 10.0
"""Seconds: less than any lease lasts, and more than a busy machine delays what takes 3."""

WORLDS = pytest.mark.parametrize(
    "worlds", [(False, False), (True, True), (True, False)], ids=["threads", "asyncio", "mixed"]
)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    flush(running_cluster)
    return running_cluster


def check_ring(url: str, keys: tuple[str, ...], in_loop: tuple[bool, ...], start: Start) -> None:
    """Have as many processes wait for each other as there are keys, and each report it."""
    store = RedisStore(url)
    limiter = SyncLimiter(store)
    workers = [
        start(
            "ring.py",
            url=url,
            holds=key,
            waits_for=keys[(number + 1) % len(keys)],
            label=f"worker-{number}",
            **{"async": in_loop[number % len(in_loop)]},
        )
        for number, key in enumerate(keys)
    ]
    for worker in workers:
        worker.wait_for("begins")
    for worker in workers:
        worker.tell()
    for key in keys:
        until_now(lambda key=key: limiter.inspect(key).waiting == 1, f"one waits for {key}")
    begun = time.monotonic()
    for worker in workers:
        message = worker.wait_for("ring", patience=ENDS_OF_LEASES)["message"]
        for number, key in enumerate(keys):
            waits_for = keys[(number + 1) % len(keys)]
            assert f"worker-{number} waits for '{waits_for}' while it holds '{key}'" in message
    took = time.monotonic() - begun
    assert took < ENDS_OF_LEASES, took
    assert limiter.evict(limiter.inspect(keys[0]).holders[0].id)  # it is not broken by itself
    for worker in workers:
        worker.wait_for("done")
        assert worker.count("ring") == 1
        worker.end()
    store.close()


@WORLDS
def test_two_processes_that_wait_for_each_other(
    server: Server, start: Start, worlds: tuple[bool, bool]
) -> None:
    check_ring(server.url, ("a", "b"), worlds, start)


def test_three_processes(server: Server, start: Start) -> None:
    check_ring(server.url, ("a", "b", "c"), (False, True), start)


@pytest.mark.cluster
def test_keys_on_different_nodes_of_a_cluster(cluster: Cluster, start: Start) -> None:
    slots_of_a_node = 16384 // 3 + 1
    keys = {key_slot(f"{{limiter:{key}}}".encode()) // slots_of_a_node: key for key in "abcdefgh"}
    assert len(keys) > 1
    check_ring(cluster.url, tuple(keys.values())[:2], (True, False), start)
