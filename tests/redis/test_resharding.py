"""A cluster that changes under load: slots that move, masters that die."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from limiter_core import ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.cluster.slot_map import MapRefresher, SingleNodeMap
from limiter_redis.protocol.keyspace import keyspace_of

from ._clusters import Cluster, Mover, owner_of
from ._load_processes import KEYS, LoadProcesses
from ._processes import Worker
from ._tools import until_now

SECONDS = 8.0 if os.environ.get("LIMITER_SLOW_TESTS") == "1" else 0.0
"""How long load goes on around each event, at least."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with closing(Cluster()) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    for server in running_cluster.primaries():
        server.admin.flushall()
    return running_cluster


def tag(key: str) -> str:
    return f"{{limiter:key={key}}}"


# -- slots that move -------------------------------------------------------------------------------


@pytest.mark.cluster
def test_slots_move_under_load(cluster: Cluster, start: Callable[..., Worker]) -> None:
    """Key by key and back and forth: nobody overlaps, nobody fails, all go on."""
    load = LoadProcesses(start, cluster.url)
    moves = 0
    ends_at = time.monotonic() + 3 * SECONDS
    while moves < 8 or time.monotonic() < ends_at:
        for key in KEYS[:4]:
            Mover(cluster, tag(key)).move()
            moves += 1
        load.until_progress()
    moved_at = time.monotonic()
    load.until_progress()
    load.finish()
    load.check()
    assert not load.failures
    load.check_progress_since(moved_at)


@pytest.mark.cluster
def test_a_slot_that_is_on_its_way_is_closed(cluster: Cluster) -> None:
    """A step that would see a part of its keys only is not carried out at all, on either node.

    Here one key of a scope has moved and another has not: on the new node the other looks free.
    """
    store = RedisStore(cluster.url)
    face = store.sync_face()
    here, there = Demand("moving/a", 1), Demand("moving/b", 1)
    assert isinstance(face.acquire(Request("holder-a", (here,))), Granted)
    assert isinstance(face.acquire(Request("holder-b", (there,))), Granted)
    assert isinstance(face.acquire(Request("both", (here, there))), Queued)
    mover = Mover(cluster, "{limiter:moving}")
    old, new = mover.begin()
    for name in old.admin.scan_iter("{limiter:moving}:*:a"):
        old.admin.execute_command("MIGRATE", "127.0.0.1", new.port, name, 0, 5000)
    hasty = RedisStore(cluster.url + "/?socket_timeout=0.3")
    with pytest.raises(ConnectionError, match=r"on its way|rehashing"):
        hasty.sync_face().release("holder-a", ("moving/a",))
    hasty.close()
    while mover.move_some(old, new, 10):
        pass
    mover.finish(old, new)
    assert face.inspect("moving/a").in_use == 1
    assert face.release("holder-a", ("moving/a",))
    assert isinstance(face.acquire(Request("both", (here, there))), Queued)
    assert face.release("holder-b", ("moving/b",))
    assert isinstance(face.acquire(Request("both", (here, there))), Granted)
    assert face.release("both", ("moving/a",))
    store.close()


@pytest.mark.cluster
async def test_a_waiter_whose_slot_moves_is_woken(cluster: Cluster) -> None:
    """Its channel is subscribed to at the new node, and it is looked at again."""
    limit = ConcurrencyLimit("key", max_concurrent=1)
    with closing(RedisStore(cluster.url)) as holding:
        lease = SyncLimiter(holding).acquire(limit, {"key": "wanders"})
        assert lease is not None
        waiting = RedisStore(cluster.url)
        task = asyncio.create_task(Limiter(waiting).acquire(limit, {"key": "wanders"}))
        renewer = waiting.session.renewer
        until = asyncio.to_thread
        await until(until_now, lambda: renewer.receives("key=wanders"), "it receives messages")  # type: ignore[attr-defined]
        await until(Mover(cluster, tag("wanders")).move)
        new = owner_of(cluster, tag("wanders"))
        pattern = "{limiter:key=wanders}:process:*"
        await until(
            until_now,
            lambda: new.admin.execute_command("PUBSUB", "SHARDCHANNELS", pattern),
            "its channel is subscribed to at the new node",
        )
        released_at = time.monotonic()
        await until(lease.release)
        got = await asyncio.wait_for(task, 5)
        assert time.monotonic() - released_at < 1.5
        await got.release()
        await waiting.aclose()


@pytest.mark.cluster
def test_without_sharded_channels(start: Callable[..., Worker]) -> None:
    """Redis 6.2 has none: who waits looks from time to time, and nothing hangs."""
    renamed = ("--rename-command", "SPUBLISH", "", "--rename-command", "SSUBSCRIBE", "")
    limit = ConcurrencyLimit("key", max_concurrent=1)
    with closing(Cluster(*renamed)) as cluster:
        with closing(RedisStore(cluster.url)) as holding, closing(RedisStore(cluster.url)) as other:
            lease = SyncLimiter(holding).acquire(limit, {"key": "x"})
            with ThreadPoolExecutor() as pool:
                waiting = pool.submit(SyncLimiter(other).acquire, limit, {"key": "x"})
                until_now(lambda: other.session.tracker.polls, "it looks")  # type: ignore[attr-defined]
                released_at = time.monotonic()
                lease.release()
                waiting.result(10).release()
                assert time.monotonic() - released_at < 2.0
        load = LoadProcesses(start, cluster.url)
        load.until_progress()
        load.finish()
        load.check()
        assert not load.failures
        load.check_progress_since(0.0)


# -- masters that die ------------------------------------------------------------------------------


@pytest.mark.cluster
def test_a_replica_takes_over_by_order(cluster: Cluster, start: Callable[..., Worker]) -> None:
    """CLUSTER FAILOVER loses nothing, so nobody overlaps."""
    load = LoadProcesses(start, cluster.url)
    load.until_progress(SECONDS)
    old = cluster.primaries()[0]
    before = {server.port for server in cluster.primaries()}
    replica = next(
        server
        for server in cluster._servers
        if server.admin.role()[0] == "slave" and server.admin.role()[2] == old.port
    )
    replica.admin.execute_command("CLUSTER", "FAILOVER")
    until_now(lambda: replica.admin.role()[0] == "master", "the replica has taken over")
    promoted_at = time.monotonic()
    load.until_progress(2 * SECONDS)
    load.finish()
    assert before != {server.port for server in cluster.primaries()}
    load.check()
    assert not load.failures
    load.check_progress_since(promoted_at)


@pytest.mark.cluster
def test_a_master_is_killed(cluster: Cluster, start: Callable[..., Worker]) -> None:
    """Its replica takes over; what it did not get may overlap for a lease, and nothing hangs."""
    load = LoadProcesses(start, cluster.url)
    load.until_progress(SECONDS)
    killed_at, promoted_at = cluster.failover()
    load.until_progress(2 * SECONDS)
    load.finish()
    load.check(lost_between=(killed_at, promoted_at))
    load.check_progress_since(promoted_at)
    until_now(lambda: len(cluster.primaries()) == 3 and cluster._is_up(), "the cluster is whole")


@pytest.mark.cluster
def test_holders_are_kept_alive_over_a_failover(cluster: Cluster) -> None:
    """S10: their leases are renewed at the new master, and given back there."""
    limit = ConcurrencyLimit("key", max_concurrent=1, lease=3)
    with SyncLimiter(cluster.url) as limiter:
        leases = [limiter.acquire(limit, {"key": key}) for key in KEYS]
        cluster.failover()
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            for lease in leases:
                assert lease is not None
                lease.check()
            time.sleep(0.05)
        for lease in leases:
            assert lease is not None
            lease.release()
        assert all(limiter.inspect(limit, {"key": key}).in_use == 0 for key in KEYS)
    until_now(lambda: len(cluster.primaries()) == 3 and cluster._is_up(), "the cluster is whole")


# -- the map ---------------------------------------------------------------------------------------


def test_a_refresh_that_no_thread_could_begin_begins_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a process that had too many threads for a moment would never follow a slot again."""

    def too_many(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done = threading.Event()
    keyspace = keyspace_of("limiter")
    refresher = MapRefresher(SingleNodeMap(keyspace), lambda _: done.set())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", too_many)
        with pytest.raises(RuntimeError):
            refresher.begin()
    refresher.begin()
    assert done.wait(5), "it begins"
