"""The store in a cluster: the contract, one slot per step, even use of the nodes, wake-ups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.requests import Demand, Queued, Request
from limiter_redis import RedisStore

from ._cluster_contract import ContractInAnEventLoop, ContractInThreads, running_cluster
from ._clusters import Cluster, counted, flush
from ._load_processes import LoadProcesses
from ._processes import Worker
from ._tools import until, until_now
from .test_cancellation import AWAITS, MOMENTS, cancelled_at

__all__ = ("running_cluster",)  # a fixture: pytest finds it by its name

PER_CUSTOMER = ConcurrencyLimit("customer", max_concurrent=1)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    primaries = flush(running_cluster)
    yield running_cluster
    left = [name for each in primaries for name in each.keys_without_expiry()]
    assert not [name for name in left if "fake-time" not in name], left


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url)
    yield store
    store.close()


class OfKeys:
    namespace = "fake"
    tags = ("{fake:contract}", "{fake}")


@pytest.mark.cluster
class TestContractInThreads(OfKeys, ContractInThreads):
    """With a hash tag for each scope."""


@pytest.mark.cluster
class TestContractInAnEventLoop(OfKeys, ContractInAnEventLoop):
    """With a hash tag for each scope."""


# -- one slot for a step ---------------------------------------------------------------------------


def test_limits_without_a_common_scope_are_refused(store: RedisStore) -> None:
    """Before anything is sent, with a word on what to do."""
    limiter = SyncLimiter(store)
    other = ConcurrencyLimit("region", max_concurrent=1)
    with pytest.raises(ConfigurationError, match="same scope"):
        limiter.acquire([PER_CUSTOMER, other], {"customer": 1, "region": "eu"})
    assert list(limiter.keys()) == []


async def test_limits_with_a_common_scope_are_taken_together(cluster: Cluster) -> None:
    """On the one node that has them."""
    customer = ConcurrencyLimit("customer", max_concurrent=1, scope="orders")
    region = ConcurrencyLimit("region", max_concurrent=1, scope="orders")
    given = {"customer": 1, "region": "eu"}
    async with Limiter(cluster.url) as limiter, limiter.hold([customer, region], given):
        keys = [key async for key in limiter.keys()]
    assert sorted(keys) == ["orders/customer=1", "orders/region=eu"]


def test_queued_jobs_need_a_scope(store: RedisStore) -> None:
    """It says where the index of those that wait lives."""
    with pytest.raises(ConfigurationError, match="scope"):
        store.sync_face().acquire(Request("job", (Demand("key", 1),), payload=b"job"))


def test_the_sweep_offers_on_every_node(cluster: Cluster, store: RedisStore) -> None:
    """S17: what nobody claimed is offered again, whoever sweeps."""
    face = store.sync_face()
    keys = [f"scope{number}/key" for number in range(9)]
    for key in keys:
        face.acquire(Request(f"holder-{key}", (Demand(key, 1),)))
        job = Request(f"job-{key}", (Demand(key, 1),), payload=b"job", claim=0.05)
        assert isinstance(face.acquire(job), Queued)
        face.release(f"holder-{key}", (key,))
    other = RedisStore(cluster.url)
    offered: list[str] = []
    other.sync_face().on_notice(lambda notice: offered.append(notice.id))

    def all_are_offered() -> bool:
        other.sync_face().sweep()
        return {f"job-{key}" for key in keys} <= set(offered)

    until_now(all_are_offered, "all jobs are offered again")
    for key in keys:
        face.release(f"job-{key}", (key,))
    other.close()


def test_a_process_that_cannot_wake_a_job_notifies_those_that_can(
    cluster: Cluster, store: RedisStore
) -> None:
    """Over a sharded channel."""
    face = store.sync_face()
    worker = RedisStore(cluster.url)
    woken: list[str] = []
    worker.sync_face().on_notice(lambda notice: woken.append(notice.id))

    def listens() -> bool:
        channels = [
            channel
            for server in cluster.primaries()
            for channel in server.admin.execute_command("PUBSUB", "SHARDCHANNELS")
        ]
        return "{limiter}:notices" in channels

    until_now(listens, "the worker listens")
    face.acquire(Request("holder", (Demand("jobs/key", 1),)))
    face.acquire(Request("job", (Demand("jobs/key", 1),), payload=b"job"))
    face.release("holder", ("jobs/key",))
    until_now(lambda: woken == ["job"], "the worker is notified of the job")
    face.release("job", ("jobs/key",))
    worker.close()


# -- all nodes, evenly -----------------------------------------------------------------------------


async def test_unrelated_limits_spread_over_the_nodes(cluster: Cluster) -> None:
    """Each node has about a third of the work, and nothing goes over the cluster's bus."""
    # No lease is renewed meanwhile, however long it takes.
    limit = ConcurrencyLimit("customer", max_concurrent=1, lease=600)
    async with Limiter(RedisStore(cluster.url)) as limiter:

        async def call(number: int) -> None:
            async with limiter.hold(limit, {"customer": number}):
                pass

        await asyncio.gather(*(call(number) for number in range(30)))  # all know the script
        with counted(cluster, "fcall", "publish") as counts:
            await asyncio.gather(*(call(number) for number in range(3000)))
    shares = [count["fcall"] for count in counts.values()]
    assert len(shares) == 3, counts
    assert min(shares) > 0.85 * 2000
    assert max(shares) < 1.15 * 2000
    assert all(count["publish"] == 0 for count in counts.values())


def test_processes_take_turns_on_all_nodes(cluster: Cluster, start: Callable[..., Worker]) -> None:
    """Hand-overs between processes, by sharded channels: no message goes over the bus."""
    with counted(cluster, "spublish", "publish") as counts:
        load = LoadProcesses(start, cluster.url)
        for _ in range(5):
            load.until_progress()
        load.finish()
    load.check()
    assert not load.failures
    assert all(count["spublish"] for count in counts.values())
    assert not any(count["publish"] for count in counts.values())
    for server in cluster.primaries():
        assert server.admin.cluster("info").get("cluster_stats_messages_publish_sent", "0") == "0"
        assert {*server.admin.scan_iter("{limiter*")} <= {"{limiter}:layout"}


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_a_waiter_in_another_process_is_woken_at_once(
    world: str, cluster: Cluster, store: RedisStore
) -> None:
    """Long before it would look by itself."""
    other = RedisStore(cluster.url)
    holder = SyncLimiter(store).acquire(PER_CUSTOMER, {"customer": 7})
    assert holder is not None
    key = "customer=7"
    if world == "async":
        waiting = asyncio.create_task(Limiter(other).acquire(PER_CUSTOMER, {"customer": 7}))
    else:
        waiter = SyncLimiter(other)
        waiting = asyncio.create_task(
            asyncio.to_thread(waiter.acquire, PER_CUSTOMER, {"customer": 7})
        )
    await until(lambda: other.session.renewer.receives(key), "it receives messages")  # type: ignore[attr-defined]
    await asyncio.sleep(0.2)  # the look that follows is over
    released_at = time.monotonic()
    await asyncio.to_thread(holder.release)
    lease: Any = await waiting
    assert time.monotonic() - released_at < 1.0
    await asyncio.to_thread(SyncLimiter(other).evict, lease.id)
    await other.aclose()


# -- clients ---------------------------------------------------------------------------------------


async def test_clients_that_users_have(cluster: Cluster) -> None:
    """Their settings say where the nodes are."""
    port = cluster.primaries()[0].port
    sync = redis.RedisCluster(host="127.0.0.1", port=port)
    store = RedisStore(client=sync)
    with SyncLimiter(store).hold(PER_CUSTOMER, {"customer": 1}):
        sync.close()
    store.close()
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
    store = RedisStore(client=client)
    async with Limiter(store).hold(PER_CUSTOMER, {"customer": 1}):
        await client.aclose()
    await store.aclose()


def test_urls() -> None:
    """Several nodes, with names, passwords and options; and what cannot be."""
    store = RedisStore("redis+cluster://user:se%2Fcret@one:7000,two,[::1]:7002/?socket_timeout=3")
    assert repr(store) == (
        "<RedisStore redis+cluster://one:7000,two:6379,::1:7002 namespace='limiter'>"
    )
    for wrong in ("redis+cluster://", "redis+cluster://one:x", "redis+cluster://one/3"):
        with pytest.raises(ConfigurationError):
            RedisStore(wrong)


RIGHTS = (
    "~{limiter:*}:* ~{limiter}:* resetchannels &{limiter:*}:process:* &{limiter}:notices "
    "-@all +select +ping +hello +client|setinfo +fcall +function|load +evalsha +eval "
    "+ssubscribe +sunsubscribe +spublish "
    "+cluster|slots +scan +sadd +smembers +expire +time +type +exists +get +set +del +hget +hmget "
    "+hset +hdel +hkeys +zadd +zrem +zremrangebyscore +zrange +zrangebyscore +zscore +zunionstore "
    "+rename +pexpire +pexpireat +persist"
)


async def test_the_rights_that_a_limiter_needs(cluster: Cluster) -> None:
    """Those of the page on the layout; nothing is denied on any node."""
    for server in cluster.primaries():
        server.admin.execute_command(
            "ACL", "SETUSER", "limiter", "reset", "on", ">secret", *RIGHTS.split()
        )
        server.admin.execute_command("ACL", "LOG", "RESET")
    store = RedisStore(cluster.url.replace("://", "://limiter:secret@"))
    other = RedisStore(cluster.url.replace("://", "://limiter:secret@"))
    limiter, sync = Limiter(store), SyncLimiter(other)
    for number in range(9):
        lease = await limiter.acquire(PER_CUSTOMER, {"customer": number})
        waiting = asyncio.create_task(
            asyncio.to_thread(sync.acquire, PER_CUSTOMER, {"customer": number})
        )
        await until(lambda: other.session.renewer.receives(f"customer={number}"), "it receives")  # type: ignore[attr-defined] # noqa: B023
        await lease.release()
        got = await asyncio.wait_for(waiting, 5)
        await asyncio.to_thread(got.release)
    face = store.async_face()
    face.on_notice(lambda notice: None)
    await face.acquire(Request("job", (Demand("jobs/key", 1),), payload=b"job"))
    await face.sweep()
    await face.release("job", ("jobs/key",))
    assert [key async for key in face.keys()] == []
    await store.aclose()
    await other.aclose()
    for server in cluster.primaries():
        assert server.admin.execute_command("ACL", "LOG") == []
        server.admin.execute_command("ACL", "DELUSER", "limiter")


# -- cancellation ----------------------------------------------------------------------------------


async def test_a_cancellation_at_every_await(cluster: Cluster) -> None:
    """S15; rows 9, 10, 27: of one who takes two slots, and of one who waits; nothing is left."""
    one = ConcurrencyLimit(LIMIT_BY.constant("one"), scope="s", max_concurrent=1, lease=60)
    other = ConcurrencyLimit(LIMIT_BY.constant("two"), scope="s", max_concurrent=1, lease=60)
    store = RedisStore(cluster.url)
    limiter = Limiter(store)

    async def hold() -> None:
        async with limiter.hold([one, other]):
            await asyncio.sleep(0)

    far = 0
    for nth, turns, times in MOMENTS:
        if await cancelled_at(hold, nth, turns, times):
            far = nth
        holder = await limiter.acquire(one, timeout=5)
        first = asyncio.create_task(cancelled_at(hold, nth, turns, times))
        second = asyncio.create_task(hold())
        await asyncio.sleep(0.001)
        await holder.release()
        await asyncio.wait_for(asyncio.gather(first, second), 5)
        async with limiter.hold([one, other], timeout=5) as lease:
            snapshot = await limiter.inspect(one)
            assert [each.id for each in snapshot.holders] == [lease.id]
            assert snapshot.waiting == 0
    assert 2 < far < AWAITS - 1
    await until(lambda: not store.session.tracker.entries, "nobody waits or holds")
    assert [key async for key in limiter.keys()] == []
    await store.aclose()


def test_loops_made_by_hand_leave_no_connections(cluster: Cluster) -> None:
    """Neither their own, nor those of plain commands."""
    limiter = Limiter(cluster.url)

    async def work() -> None:
        async with limiter.hold(PER_CUSTOMER, {"customer": 1}):
            assert [key async for key in limiter.keys()] == ["customer=1"]

    def in_a_loop_of_its_own() -> int:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(work())
        finally:
            loop.close()
        return sum(server.admin.info("clients")["connected_clients"] for server in cluster._servers)

    before = in_a_loop_of_its_own()
    for _ in range(10):
        after = in_a_loop_of_its_own()
    assert after <= before + 8  # of two loops, at the most, and of the renewer's threads
    limiter._engine.store.close()
