"""The workers of nodes: threads that cannot begin, a node that is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.requests import Demand, Request
from limiter_core.threads import SystemThread
from limiter_redis import RedisStore
from limiter_redis.cluster.slot_map import SingleNodeMap, tag_of
from limiter_redis.connection.nodes import Node
from limiter_redis.session.entries import Entry
from limiter_redis.session.renewal import LeaseRenewer
from limiter_redis.session.tracker import RequestTracker

from ._clusters import Cluster, owner_of
from ._listeners import NotingListener
from ._tools import until_now, until_outlived

LEASE = 2.0
LIMITS = [
    ConcurrencyLimit(LIMIT_BY.constant("key"), 1, scope=f"scope-{number}", lease=LEASE)
    for number in range(12)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster in which a node that is away leaves the others at work, and stays away."""
    settings = ("--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes")
    with closing(Cluster(*settings)) as cluster:
        yield cluster


def limits_by_node(cluster: Cluster) -> dict[int, ConcurrencyLimit]:
    """One limit for each node, by its port."""
    keyspace = RequestTracker("limiter", sharded=True).keyspace
    found: dict[int, ConcurrencyLimit] = {}
    for limit in LIMITS:
        found[owner_of(cluster, tag_of(keyspace, f"{limit.scope}/key")).port] = limit
    assert len(found) == 3
    return found


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of threads that cannot begin."""
    names: set[str] = set()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return names


def workers_of(store: RedisStore) -> dict[Node, Any]:
    renewer: Any = store.session.renewer
    workers: dict[Node, Any] = renewer._workers
    return workers


@pytest.mark.cluster
async def test_where_no_thread_can_begin_for_a_node_another_one_renews_its_leases(
    cluster: Cluster, full: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And no other node suffers: of a process that has too many threads."""
    (first, *ports) = limits_by_node(cluster)
    by_port = limits_by_node(cluster)
    store = RedisStore(cluster.url)
    limiter = SyncLimiter(store)
    running = limiter.acquire(by_port[first])
    until_now(lambda: store.session.renewer.listening, "a worker runs")
    full.update(f"limiter-127.0.0.1:{port}" for port in ports)
    leases = [limiter.acquire(by_port[port]) for port in ports]
    for lease in (*leases, running):
        await until_outlived(lease, LEASE)
    said = [each for each in caplog.messages if "cannot begin a thread" in each]
    assert len(said) == 1, said
    full.clear()
    until_now(lambda: len(workers_of(store)) == 3, "each node has a worker when threads can begin")
    for lease in (*leases, running):
        lease.release()
    store.close()


@pytest.mark.cluster
def test_a_node_that_is_away_is_said_once_however_well_the_others_are(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(cluster.url)
    limiter = SyncLimiter(store)
    leases = {port: limiter.acquire(limit) for port, limit in limits_by_node(cluster).items()}
    away = cluster.primaries()[0]
    lost = leases.pop(away.port)
    with away.frozen():
        until_now(lambda: lost.lost, "the lease there has ended")
        renewing = workers_of(store)[Node("127.0.0.1", away.port)].renewing
        until_now(lambda: renewing._failures >= 3, "the node is asked again and again")
        said = [each for each in caplog.messages if "cannot renew leases" in each]
        assert len(said) == 1, said
    for lease in leases.values():
        assert not lease.lost
        lease.release()
    store.close()


@pytest.mark.cluster
async def test_in_an_event_loop_a_call_ends_where_no_thread_can_read_the_map(
    cluster: Cluster, full: set[str]
) -> None:
    """Its wait for the map is a failure like another: it is tried again, and the call goes on."""
    store = RedisStore(cluster.url)
    limiter = Limiter(store)
    full.add("limiter-slots")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    call = asyncio.create_task(limiter.acquire(LIMITS[0]))
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: failures.append(said))
    await asyncio.sleep(0.5)  # the fault itself
    full.clear()
    await (await call).release()
    counting.cancel()
    assert failures == []
    await limiter.aclose()
    await store.aclose()


class NothingOwned(SingleNodeMap):
    """A map in which no node is known."""

    def node_of(self, tag: str) -> None:
        """None is known."""


def renewer_of(tracker: RequestTracker) -> Any:
    nothing: Any = None
    return LeaseRenewer(tracker, nothing, NothingOwned(tracker.keyspace), lambda: nothing)


def test_what_is_queued_while_the_renewer_looks_at_all_requests_is_listened_for() -> None:
    tracker = RequestTracker("limiter", sharded=True)
    renewer = renewer_of(tracker)
    asked, other = (
        Request(each, (Demand(f"{each}/key", 1),), 30.0, listener=NotingListener())
        for each in ("asked", "other")
    )
    is_looked_at = threading.Event()

    class QueuedMeanwhile(Entry):
        """Behind the first: while it is looked at, the reply to the first is read."""

        @property
        def waiting(self) -> bool:
            if not is_looked_at.is_set():
                is_looked_at.set()
                renewer.watch("asked/key")
            return True

    tracker.begin(asked, time.monotonic())
    tracker.entries["other"] = QueuedMeanwhile(other, NotingListener(), 0.0)
    for _ in range(3):
        renewer._watch_at = 0.0
        renewer._hand_out_tags(time.monotonic())
    assert is_looked_at.is_set()
    assert tag_of(tracker.keyspace, "asked/key") in renewer._tags_to_watch(time.monotonic())


def test_a_thread_that_was_about_to_end_goes_on_for_notices() -> None:
    """`on_notice` saw one that runs, and began no other."""
    tracker = RequestTracker("limiter")
    renewer = renewer_of(tracker)
    thread = renewer._thread = SystemThread(lambda: None, "limiter-lease-renewer")
    tracker.notices.callback = lambda _: True
    assert not renewer._may_end(thread)
    assert renewer._thread is thread
    tracker.close()
    assert renewer._may_end(thread)


@pytest.mark.cluster
def test_no_connection_to_a_node_is_left_that_has_no_slots_any_more(cluster: Cluster) -> None:
    """Where nodes come and go for years, each would leave some."""
    store = RedisStore(cluster.url)
    limiter = SyncLimiter(store)
    limits = limits_by_node(cluster)
    with limiter.hold(next(iter(limits.values()))):
        pass
    session: Any = store.session
    [transport] = session._sync_transports.values()
    ports = [int(each.rpartition(":")[2]) for each in cluster.url.split(",")]
    gone = Node("127.0.0.1", next(port for port in ports if port not in limits))  # a replica
    transport.command("PING", node=gone)
    assert gone in transport._exchange._pools
    connection = transport._exchange._pools[gone]._idle[0]
    slot_map = transport._slot_map
    slot_map.refresh(slot_map.version)
    with limiter.hold(next(iter(limits.values()))):
        pass
    assert gone not in transport._exchange._pools
    assert connection._sock is None
    store.close()
