"""`min_replicas`: a grant counts only once so many replicas have it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from limiter_core import (
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Loss, Mode, Request
from limiter_redis import RedisStore, store_from_url
from limiter_redis.cluster.replicas import give_back, grants_of
from limiter_redis.protocol import commands, replies
from tests.faults._replicated import Pair

from ._clusters import Cluster
from ._load_processes import LoadProcesses
from ._processes import Worker
from ._tools import until, until_now

LIMIT = ConcurrencyLimit("key", max_concurrent=1)
ARGUMENTS = {"key": "x"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with closing(Pair()) as pair:
        yield pair


def nothing_is_left(pair: Pair) -> None:
    """But for the layout, and for a while what was given back before it could arrive."""
    primary = pair.primaries()[0].admin
    left = {*primary.scan_iter("{limiter*")} - {"{limiter}:layout"}
    assert all(":ended:" in name and primary.pttl(name) > 0 for name in left), left


@pytest.fixture
def store(pair: Pair) -> Iterator[RedisStore]:
    with closing(RedisStore(pair.url, min_replicas=(1, 1.0))) as store:
        yield store
    nothing_is_left(pair)


@pytest.fixture
def impatient(pair: Pair) -> Iterator[RedisStore]:
    with closing(RedisStore(pair.url, min_replicas=(2, 0.05))) as store:
        yield store
    nothing_is_left(pair)


def test_what_is_asked_is_checked() -> None:
    for wrong in ((0, 1), (1, 0), 1, (1,), ("1", 1)):
        with pytest.raises(ConfigurationError, match="min_replicas"):
            RedisStore("redis://localhost", min_replicas=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="min_replicas"):
        store_from_url("redis://localhost/0?min_replicas=some")
    store_from_url("redis://localhost/0?min_replicas=1&min_replicas_timeout=0.5")


async def test_a_replica_has_what_was_granted(pair: Pair, store: RedisStore) -> None:
    replica = pair._replica.admin
    with SyncLimiter(store).hold(LIMIT, ARGUMENTS):
        assert replica.exists("{limiter:key=x}:state")
    limiter = Limiter(store)
    for _ in range(20):
        async with limiter.hold(LIMIT, ARGUMENTS):
            assert replica.exists("{limiter:key=x}:state")
    await store.aclose()


async def test_a_grant_without_enough_replicas_is_given_back(
    pair: Pair, impatient: RedisStore
) -> None:
    """And the caller is told how many there were."""
    with pytest.raises(StoreUnavailable, match="only 1 of 2 replicas"):
        SyncLimiter(impatient).try_acquire(LIMIT, ARGUMENTS)
    assert SyncLimiter(impatient).inspect(LIMIT, ARGUMENTS).in_use == 0
    limiter = Limiter(impatient)
    with pytest.raises(StoreUnavailable, match="only 1 of 2 replicas"):
        await limiter.try_acquire(LIMIT, ARGUMENTS)
    assert (await limiter.inspect(LIMIT, ARGUMENTS)).in_use == 0
    with pytest.raises(StoreUnavailable):
        await limiter.acquire(LIMIT, ARGUMENTS, timeout=0.3)
    assert (await limiter.inspect(LIMIT, ARGUMENTS)).in_use == 0
    await impatient.aclose()


@pytest.mark.parametrize("mode", [Mode.WAIT, Mode.RECLAIM])
def test_whoever_was_told_of_a_grant_that_is_given_back_hears_that_it_is_lost(mode: Mode) -> None:
    """News of the grant may be faster than replicas; what is asked for again is held meanwhile."""
    operation = commands.acquire(Request("call", (Demand("k", 1),), mode=mode))
    lines = ["granted 7 30000000"]
    grants = grants_of([operation], lines)
    assert grants is not None
    (release,) = give_back([operation], lines, grants, lambda _: None)
    assert release == commands.release("call", "k")
    told = [(news.id, news.loss, news.token) for news in map(replies.parse_news, lines[1:])]
    assert told == ([("call", Loss.FORGOTTEN, 7)] if mode is Mode.WAIT else [])


def delivery(claimant: str) -> Request:
    return Request("job", (Demand("k", 1),), payload=b"x", claimant=claimant)


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_what_is_given_back_of_a_job_is_not_the_lease_of_its_next_delivery(
    world: str, pair: Pair
) -> None:
    """It was evicted while replicas were asked, and delivered again."""
    careful, other = RedisStore(pair.url, min_replicas=(2, 3.0)), RedisStore(pair.url)
    face = other.sync_face()
    if world == "async":
        first = asyncio.create_task(careful.async_face().acquire(delivery("first")))
    else:
        first = asyncio.create_task(
            asyncio.to_thread(careful.sync_face().acquire, delivery("first"))
        )
    await until(lambda: face.inspect("k").holders, "the first delivery is granted")
    assert face.evict("job")
    assert isinstance(face.acquire(delivery("second")), Granted)
    with pytest.raises(StoreUnavailable, match="only 1 of 2 replicas"):
        await asyncio.wait_for(first, 20)
    await asyncio.to_thread(
        until_now, lambda: not careful.session.tracker.requests, "all is given back"
    )
    assert face.release_claim("job", ["k"], "second")
    face.release("job", ["k"])  # nor is it remembered that the first one was evicted
    await careful.aclose()
    other.close()


@pytest.mark.parametrize("world", ["async", "sync"])
async def test_a_waiter_gets_no_slot_that_a_failover_would_forget(
    world: str, pair: Pair, store: RedisStore
) -> None:
    """A hand-over within the process is confirmed as well; who waits goes on waiting."""
    limiter, sync = Limiter(store), SyncLimiter(store)
    holder: Any = await limiter.acquire(LIMIT, ARGUMENTS)
    if world == "async":
        waiting = asyncio.create_task(limiter.acquire(LIMIT, ARGUMENTS))
    else:
        waiting = asyncio.create_task(asyncio.to_thread(sync.acquire, LIMIT, ARGUMENTS))
    inspect = asyncio.to_thread
    await inspect(until_now, lambda: sync.inspect(LIMIT, ARGUMENTS).waiting == 1, "it waits")
    with pair._link.cut():
        await holder.release()
        await asyncio.sleep(1.5)
        assert not waiting.done()
    lease = await asyncio.wait_for(waiting, 10)
    assert pair._replica.admin.exists("{limiter:key=x}:state")
    release = lease.release()
    if release is not None:
        await release
    await store.aclose()


@pytest.mark.cluster
def test_in_a_cluster(start: Callable[..., Worker]) -> None:
    """With a replica for each master all goes on; a kill -9 then loses no grant."""
    with closing(Cluster()) as cluster:
        load = LoadProcesses(start, cluster.url, min_replicas=(1, 1.0))
        load.until_progress()
        load.finish()
        load.check()
        assert not load.failures
        with closing(RedisStore(cluster.url, min_replicas=(2, 0.05))) as store:
            with pytest.raises(StoreUnavailable, match="only 1 of 2"):
                SyncLimiter(store).try_acquire(LIMIT, ARGUMENTS)
            assert SyncLimiter(store).inspect(LIMIT, ARGUMENTS).in_use == 0
