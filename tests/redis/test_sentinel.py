"""The store behind Sentinels: it finds the master, and follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.sentinel

from limiter_core import (
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_redis import RedisStore
from tests.faults._replicated import SERVICE, Sentinel

from ._processes import Worker
from ._spread import KEYS, Crew
from ._tools import until_now

LIMIT = ConcurrencyLimit("key", max_concurrent=1, lease=3)


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Sentinel]:
    with closing(Sentinel()) as sentinel:
        yield sentinel


def hosts(sentinel: Sentinel) -> list[tuple[str, int]]:
    return [("127.0.0.1", each.port) for each in sentinel._sentinels]


def until_whole(sentinel: Sentinel) -> None:
    """Wait until the old master follows the new one, and all Sentinels know."""
    until_now(sentinel._know_each_other, "the old master is a replica that the sentinels know")
    [master] = sentinel.primaries()
    [other] = [server for server in sentinel._servers if server is not master]

    def follows() -> bool:
        role = other.admin.role()
        return role[0] == "slave" and role[2] == master.port and role[3] == "connected"

    until_now(follows, "it follows")


def test_urls() -> None:
    """Sentinels, the service, a database, options; and what cannot be."""
    store = RedisStore(
        "redis+sentinel://me:secret@one:1,two/limits/3?socket_timeout=2&sentinel_password=hush"
    )
    assert repr(store) == (
        "<RedisStore redis+sentinel://one:1,two:26379/limits/3 namespace='limiter'>"
    )
    for wrong in ("redis+sentinel://one:1", "redis+sentinel:///limits", "redis+sentinel://a:x/l"):
        with pytest.raises(ConfigurationError):
            RedisStore(wrong)


async def test_both_worlds_find_the_master(sentinel: Sentinel) -> None:
    with SyncLimiter(sentinel.url) as limiter:
        with limiter.hold(LIMIT, {"key": "x"}):
            assert limiter.inspect(LIMIT, {"key": "x"}).in_use == 1
    async with Limiter(sentinel.url) as alimiter:
        async with alimiter.hold(LIMIT, {"key": "x"}):
            assert (await alimiter.inspect(LIMIT, {"key": "x"})).in_use == 1


async def test_clients_that_users_have(sentinel: Sentinel) -> None:
    """Made by `Sentinel.master_for`, sync or async."""
    theirs = redis.sentinel.Sentinel(hosts(sentinel))
    client: Any = theirs.master_for(SERVICE)
    store = RedisStore(client=client)
    assert SERVICE in repr(store)
    async with Limiter(store) as alimiter:
        with SyncLimiter(store) as limiter:
            with limiter.hold(LIMIT, {"key": "x"}):
                assert (await alimiter.inspect(LIMIT, {"key": "x"})).in_use == 1
    with pytest.raises(ConfigurationError, match="master"):
        RedisStore(client=theirs.slave_for(SERVICE))
    client.close()
    for each in theirs.sentinels:
        each.close()
    their_async = redis.asyncio.sentinel.Sentinel(hosts(sentinel))
    aclient: Any = their_async.master_for(SERVICE)
    store = RedisStore(client=aclient)
    async with Limiter(store) as alimiter, alimiter.hold(LIMIT, {"key": "x"}):
        pass
    await aclient.aclose()


def test_a_service_that_nobody_knows(sentinel: Sentinel) -> None:
    """It is an outage that may pass, and says what was asked."""
    limiter = SyncLimiter(sentinel.url.replace(SERVICE, "unheard-of"))
    with pytest.raises(StoreUnavailable, match="unheard-of"):
        limiter.try_acquire(LIMIT, {"key": "x"})
    limiter.close()


def test_a_master_dies_under_load(sentinel: Sentinel, start: Callable[..., Worker]) -> None:
    """kill -9: all go on at the new one, nobody overlaps but by writes it did not get."""
    crew = Crew(start, sentinel.url)
    time.sleep(0.5)
    killed_at, promoted_at = sentinel.failover()
    time.sleep(2.0)
    crew.finish()
    crew.check(lost_between=(killed_at, promoted_at))
    crew.went_on(promoted_at)
    until_whole(sentinel)


def test_holders_and_waiters_live_through_a_failover_by_order(sentinel: Sentinel) -> None:
    """SENTINEL FAILOVER: the old master is demoted and stays; whoever talks to it is sent on."""
    until_whole(sentinel)
    [old] = sentinel.primaries()
    with SyncLimiter(sentinel.url) as limiter, SyncLimiter(sentinel.url) as other:
        leases = [limiter.acquire(LIMIT, {"key": key}) for key in KEYS]
        sentinel._sentinels[0].admin.sentinel_failover(SERVICE)
        until_now(lambda: sentinel.primaries() != [old], "the sentinels name another")
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            for lease in leases:
                assert lease is not None
                lease.check()
            time.sleep(0.05)
        assert other.try_acquire(LIMIT, {"key": KEYS[0]}) is None
        for lease in leases:
            assert lease is not None
            lease.release()
        assert all(limiter.inspect(LIMIT, {"key": key}).in_use == 0 for key in KEYS)
    until_whole(sentinel)


async def test_a_demoted_master_is_left(sentinel: Sentinel) -> None:
    """READONLY has both worlds ask the Sentinels again."""
    until_whole(sentinel)
    [old] = sentinel.primaries()
    async with Limiter(sentinel.url) as alimiter:
        with SyncLimiter(sentinel.url) as limiter:
            for key in ("a", "b"):
                async with alimiter.hold(LIMIT, {"key": key}):
                    pass
                with limiter.hold(LIMIT, {"key": key}):
                    pass
            await asyncio.to_thread(sentinel._sentinels[0].admin.sentinel_failover, SERVICE)
            named = lambda: sentinel.primaries() != [old]  # noqa: E731
            await asyncio.to_thread(until_now, named, "the sentinels name another")
            async with alimiter.hold(LIMIT, {"key": "a"}, timeout=10):
                with limiter.hold(LIMIT, {"key": "b"}, timeout=10):
                    [new] = sentinel.primaries()
                    assert new.admin.exists("{limiter:key=a}:state", "{limiter:key=b}:state") == 2
    await asyncio.to_thread(until_whole, sentinel)
