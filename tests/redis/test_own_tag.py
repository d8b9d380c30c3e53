"""A namespace with a hash tag of its own: all of it in one slot of a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.requests import Demand, Granted, Notice, Queued, Request
from limiter_core.testing.listener import RecordingListener
from limiter_redis import RedisStore
from limiter_redis.cluster.redirects import in_slots
from limiter_redis.protocol.script import SCRIPT

from ._cluster_contract import ContractInAnEventLoop, ContractInThreads, running_cluster
from ._clusters import FAKED, Cluster, Mover, counted, flush, owner_of
from ._load_processes import LoadProcesses
from ._processes import Worker
from ._servers import Process
from ._tools import until, until_now, until_outlived
from .test_cluster import RIGHTS

__all__ = ("running_cluster",)  # a fixture: pytest finds it by its name

pytestmark = pytest.mark.cluster

NAMESPACE = "{shop}:limits"
CUSTOMER = ConcurrencyLimit("customer", max_concurrent=1)
REGION = ConcurrencyLimit("region", max_concurrent=1, scope="regions")
ALL = ConcurrencyLimit(LIMIT_BY.constant("all"), max_concurrent=1, scope="shop")
GIVEN = {"customer": 7, "region": "eu"}
KEYS = ["customer=7", "regions/region=eu", "shop/all"]


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, empty; no node has to refuse anything for the slots of its keys."""
    primaries = flush(running_cluster)
    for server in primaries:
        for script in map(in_slots, (SCRIPT, FAKED)):
            # To find that it is missing is an error, too; to load it takes the node 5 ms.
            if not server.admin.function_list(script.function):
                server.admin.function_load(script.library)
        server.admin.config_resetstat()
    yield running_cluster
    for server in primaries:
        errors = server.admin.info("errorstats")
        assert "errorstat_CROSSSLOT" not in errors
        assert "errorstat_ERR" not in errors, "nor does the script ask for a key elsewhere"
        assert [name for name in server.keys_without_expiry() if "fake-time" not in name] == []


def new_store(cluster: Cluster) -> RedisStore:
    return RedisStore(cluster.url, namespace=NAMESPACE)


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = new_store(cluster)
    yield store
    store.close()


@pytest.fixture
def other(cluster: Cluster) -> Iterator[RedisStore]:
    """As another process has it."""
    other = new_store(cluster)
    yield other
    other.close()


def owner(cluster: Cluster) -> Process:
    return owner_of(cluster, NAMESPACE)


def job(name: str, *keys: str, **facts: Any) -> Request:
    demands = tuple(Demand(key, 1) for key in keys)
    return Request(name, demands, payload=name.encode(), **facts)


# -- the contract ----------------------------------------------------------------------------------


class OfTheNamespace:
    namespace = "{fake}:limits"
    tags = ("{fake}",)


class TestContractInThreads(OfTheNamespace, ContractInThreads):
    """With one hash tag for all keys."""


class TestContractInAnEventLoop(OfTheNamespace, ContractInAnEventLoop):
    """With one hash tag for all keys."""


# -- one slot --------------------------------------------------------------------------------------


def test_a_prefix_without_a_tag_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match=r"'{shop}:limits' in place of 'shop:limits'"):
        RedisStore(cluster.url, namespace="shop:limits")


def test_what_it_can_do(cluster: Cluster, store: RedisStore) -> None:
    """What no other namespace can in a cluster."""
    assert store.capabilities.spans_scopes
    assert not RedisStore(cluster.url).capabilities.spans_scopes


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_limits_of_any_scopes_are_taken_together(
    world: str, cluster: Cluster, store: RedisStore
) -> None:
    """And waited for together, on the one node that has the tag."""
    sync = SyncLimiter(store)
    thread = asyncio.to_thread
    limits = [CUSTOMER, REGION, ALL]
    with counted(cluster, "fcall") as counts:
        if world == "async":
            lease: Any = await Limiter(store).acquire(limits, GIVEN)
        else:
            lease = await thread(sync.acquire, limits, GIVEN)
        assert await thread(lambda: sorted(sync.keys())) == KEYS
        assert len(list(owner(cluster).admin.scan_iter("{shop}:limits:{*:state*"))) == len(KEYS)
        for limit in limits:
            assert (await thread(sync.inspect, limit, GIVEN)).in_use == 1
        assert await thread(sync.evict, lease.id)
    busy = [port for port, count in counts.items() if count["fcall"]]
    assert busy == [owner(cluster).port]


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_names_on_the_nodes(
    world: str, cluster: Cluster, store: RedisStore, other: RedisStore
) -> None:
    """Redis keys, and sharded channels; nothing goes over the bus."""
    face = store.sync_face()
    face.on_notice(lambda _: True)
    limits = [CUSTOMER, REGION]
    thread = asyncio.to_thread
    lease = await thread(SyncLimiter(store).acquire, limits, GIVEN)
    waits: Any = (
        Limiter(other).acquire(limits, GIVEN)
        if world == "async"
        else thread(SyncLimiter(other).acquire, limits, GIVEN)
    )
    waiting = asyncio.create_task(waits)
    await until(lambda: other.session.renewer.receives("customer=7"), "it receives messages")  # type: ignore[attr-defined]
    await thread(face.acquire, job("job", "regions/region=eu"))
    names = set(owner(cluster).admin.scan_iter("*shop*"))
    assert names == {
        *(f"{{shop}}:limits:{{customer=7}}:{kind}" for kind in ("state", "ends", "queue")),
        *(f"{{shop}}:limits:{{regions}}:{kind}:region=eu" for kind in ("state", "ends", "queue")),
        "{shop}:limits:{regions}:offers",
        "{shop}:limits:scopes",
        "{shop}:limits:layout",
    }
    channels = {
        f"{{shop}}:limits:process:{store.session.tracker.process}",
        f"{{shop}}:limits:process:{other.session.tracker.process}",
        "{shop}:limits:notices",
    }
    assert len({key_slot(name.encode()) for name in names | channels}) == 1

    def received() -> set[str]:
        return set(owner(cluster).admin.execute_command("PUBSUB", "SHARDCHANNELS"))

    await until(lambda: received() >= channels, "the node has all subscriptions")
    await thread(face.release, "job", ("regions/region=eu",))
    await thread(lease.release)
    got = await asyncio.wait_for(waiting, 5)
    await (got.release() if world == "async" else thread(got.release))
    for server in cluster.primaries():
        assert server.commands().get("publish", 0) == 0
    assert await thread(lambda: list(face.keys())) == []
    await store.aclose()
    await other.aclose()


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_a_waiter_in_another_process_is_woken_at_once(
    world: str, store: RedisStore, other: RedisStore
) -> None:
    """Long before it would look by itself; whichever of its limits it waits for."""
    thread = asyncio.to_thread
    for blocking in (CUSTOMER, REGION, ALL):
        holder = await thread(SyncLimiter(store).acquire, blocking, GIVEN)
        limits = [CUSTOMER, REGION, ALL]
        waits: Any = (
            Limiter(other).acquire(limits, GIVEN)
            if world == "async"
            else thread(SyncLimiter(other).acquire, limits, GIVEN)
        )
        waiting = asyncio.create_task(waits)
        await until(lambda: other.session.renewer.receives("customer=7"), "it receives messages")  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)  # the look that follows is over
        released_at = time.monotonic()
        await thread(holder.release)
        lease = await waiting
        assert time.monotonic() - released_at < 1.0
        await (lease.release() if world == "async" else thread(lease.release))
    await store.aclose()
    await other.aclose()


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_leases_are_renewed(world: str, store: RedisStore) -> None:
    """By the renewer, at the node, again and again."""
    lease_time = 1.8
    limits = [
        ConcurrencyLimit("customer", max_concurrent=1, lease=lease_time),
        ConcurrencyLimit("region", max_concurrent=1, scope="regions", lease=lease_time),
    ]
    thread = asyncio.to_thread
    sync = SyncLimiter(store)
    lease: Any = (
        await Limiter(store).acquire(limits, GIVEN)
        if world == "async"
        else await thread(sync.acquire, limits, GIVEN)
    )
    await until_outlived(lease, lease_time)
    for limit in limits:
        (holder,) = (await thread(sync.inspect, limit, GIVEN)).holders
        assert holder.id == lease.id
        assert 0 < holder.expires_in <= lease_time
    assert not lease.lost
    await (lease.release() if world == "async" else thread(lease.release))
    await store.aclose()


# -- durable tickets -------------------------------------------------------------------------------


def test_queued_jobs_need_no_scope(store: RedisStore, other: RedisStore) -> None:
    """S17: who frees the slot is notified of a job of another process, also for several keys."""
    received: list[Notice] = []
    face, theirs = store.sync_face(), other.sync_face()
    face.on_notice(received.append)
    theirs.on_notice(lambda _: True)
    keys = ("a", "b", "s/c")
    assert isinstance(face.acquire(job("first", *keys)), Granted)
    assert isinstance(theirs.acquire(job("second", *keys)), Queued)
    assert face.release("first", keys)
    [notice] = received
    assert (notice.id, notice.payload) == ("second", b"second")
    assert isinstance(theirs.acquire(job("second", *keys)), Granted)
    assert theirs.release("second", keys)
    assert list(face.keys()) == []


async def test_queued_jobs_in_an_event_loop(store: RedisStore, other: RedisStore) -> None:
    """S17: the async face does the same, and its sweep offers what nobody claimed."""
    received: list[str] = []
    face, theirs = store.async_face(), other.async_face()
    theirs.on_notice(lambda notice: received.append(notice.id))
    assert isinstance(await face.acquire(job("first", "a", "s/b")), Granted)
    assert isinstance(await face.acquire(job("second", "a", "s/b", claim=0.05)), Queued)
    assert await face.release("first", ("a", "s/b"))  # it is told to nobody who could wake the job

    async def is_offered() -> None:
        while received != ["second"]:
            await theirs.sweep()
            await asyncio.sleep(0.005)

    received.clear()
    await asyncio.wait_for(is_offered(), 10)
    assert isinstance(await theirs.acquire(job("second", "a", "s/b")), Granted)
    assert await theirs.release("second", ("a", "s/b"))
    await store.aclose()
    await other.aclose()


def test_jobs_of_a_killed_process_go_on(
    cluster: Cluster, store: RedisStore, start: Callable[..., Worker]
) -> None:
    """S2, S17: no release is received, the lease ends; the sweep offers the slot."""
    limit = {"max_concurrent": 1, "lease": 1.0}
    worker = start("hold.py", url=cluster.url, namespace=NAMESPACE, limit=limit)
    worker.wait_for("begins")
    face = store.sync_face()
    received: list[str] = []
    face.on_notice(lambda notice: received.append(notice.id))
    [key] = face.keys()
    assert "/" not in key
    assert isinstance(face.acquire(job("job", key)), Queued)
    worker.kill()

    def swept() -> bool:
        face.sweep()
        return received == ["job"]

    until_now(swept, "the slot is offered to the job")
    assert isinstance(face.acquire(job("job", key)), Granted)
    face.release("job", (key,))


def test_a_process_that_cannot_wake_a_job_notifies_those_that_can(
    cluster: Cluster, store: RedisStore, other: RedisStore
) -> None:
    """S17: by the sharded channel of notices, beside that of the process."""
    received: list[str] = []
    other.sync_face().on_notice(lambda notice: received.append(notice.id))

    def listens() -> Any:
        channel = "{shop}:limits:notices"
        command = ("PUBSUB", "SHARDNUMSUB", channel)
        return dict([owner(cluster).admin.execute_command(*command)])[channel]

    until_now(listens, "the worker listens")
    face = store.sync_face()
    call = Request("call", (Demand("a", 1),), listener=RecordingListener())
    assert isinstance(face.acquire(call), Granted)
    assert isinstance(other.sync_face().acquire(job("job", "a")), Queued)
    face.release("call")
    until_now(lambda: received == ["job"], "the worker was notified")
    assert isinstance(other.sync_face().acquire(job("job", "a")), Granted)
    other.sync_face().release("job", ("a",))


# -- under load ------------------------------------------------------------------------------------


def test_processes_take_turns_while_the_slot_moves(
    cluster: Cluster, start: Callable[..., Worker]
) -> None:
    """Key by key, from node to node: nobody overlaps, nothing fails, all go on."""
    load = LoadProcesses(start, cluster.url, namespace=NAMESPACE)
    mover = Mover(cluster, NAMESPACE)
    for _ in range(6):
        load.until_progress()
        mover.move()
    moved_at = time.monotonic()
    load.until_progress()
    load.finish()
    load.check()
    load.check_progress_since(moved_at)
    assert not load.failures
    for server in cluster.primaries():
        assert server.commands().get("publish", 0) == 0
        assert {*server.admin.scan_iter("*shop*")} <= {"{shop}:limits:layout"}
        assert "errorstat_CROSSSLOT" not in server.admin.info("errorstats")
        server.admin.config_resetstat()  # a slot that is closed while it moves is an error, too


# -- rights ----------------------------------------------------------------------------------------


async def test_the_rights_to_the_tag_are_enough(cluster: Cluster) -> None:
    """Keys and channels that begin with "{shop}:"; nothing is denied on any node."""
    ours = "~{limiter:*}:* ~{limiter}:*", "&{limiter:*}:process:* &{limiter}:notices"
    rights = RIGHTS.replace(ours[0], "~{shop}:*").replace(ours[1], "&{shop}:*")
    assert "limiter" not in rights
    for server in cluster.primaries():
        server.admin.execute_command(
            "ACL", "SETUSER", "shop", "reset", "on", ">secret", *rights.split()
        )
        server.admin.execute_command("ACL", "LOG", "RESET")
    url = cluster.url.replace("://", "://shop:secret@")
    store, other = (RedisStore(url, namespace=NAMESPACE) for _ in range(2))
    limits = [CUSTOMER, REGION]
    lease = await Limiter(store).acquire(limits, GIVEN)
    waiting = asyncio.create_task(asyncio.to_thread(SyncLimiter(other).acquire, limits, GIVEN))
    await until(lambda: other.session.renewer.receives("customer=7"), "it receives messages")  # type: ignore[attr-defined]
    await lease.release()
    got = await asyncio.wait_for(waiting, 5)
    face = store.async_face()
    face.on_notice(lambda notice: None)
    assert isinstance(await face.acquire(job("job", "customer=7", "regions/region=eu")), Queued)
    await asyncio.to_thread(got.release)
    await face.sweep()
    await face.pause("customer=7")
    await face.resume("customer=7")
    assert await face.release("job")
    assert [key async for key in face.keys()] == []
    await store.aclose()
    await other.aclose()
    for server in cluster.primaries():
        assert server.admin.execute_command("ACL", "LOG") == []
        server.admin.execute_command("ACL", "DELUSER", "shop")
