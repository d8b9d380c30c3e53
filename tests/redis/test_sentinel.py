"""The store behind Sentinels: it finds the master, and follows it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.sentinel

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    Lease,
    Limiter,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.jobs import Held, Job, JobGate, Waiting
from limiter_redis import RedisStore
from tests.faults._sentinel import SERVICE, Sentinel

from ._fake_sentinels import FakeSentinel
from ._load_processes import LoadProcesses
from ._notified_parties import KEY, LoopParty, Party, ThreadParty, seconds_until
from ._processes import Worker
from ._servers import Process, server_program
from ._tools import until, until_now, until_true

LIMIT = ConcurrencyLimit("key", max_concurrent=1, lease=3)


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
    with SyncLimiter(sentinel.url) as limiter, limiter.hold(LIMIT, {"key": "x"}):
        assert limiter.inspect(LIMIT, {"key": "x"}).in_use == 1
    async with Limiter(sentinel.url) as alimiter, alimiter.hold(LIMIT, {"key": "x"}):
        assert (await alimiter.inspect(LIMIT, {"key": "x"})).in_use == 1


async def test_clients_that_users_have(sentinel: Sentinel) -> None:
    """Made by `Sentinel.master_for`, sync or async."""
    theirs = redis.sentinel.Sentinel(hosts(sentinel))
    client: Any = theirs.master_for(SERVICE)
    store = RedisStore(client=client)
    assert SERVICE in repr(store)
    async with Limiter(store) as alimiter:
        with SyncLimiter(store) as limiter, limiter.hold(LIMIT, {"key": "x"}):
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


def test_sentinels_that_do_not_answer_are_asked_first_only_once(sentinel: Sentinel) -> None:
    """Also by the connection for messages, which has no time to ask those behind them."""
    addresses = ("127.0.0.1", 0)
    with socket.create_server(addresses) as one, socket.create_server(addresses) as other:
        silent = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other))
        url = sentinel.url.replace("redis+sentinel://", f"redis+sentinel://{silent},")
        store = RedisStore(url)
        with SyncLimiter(store).hold(ConcurrencyLimit("key", lease=60), {"key": "k"}):
            until_now(lambda: store.session.renewer.listening, "messages are received")
        store.close()


class LateSentinel(FakeSentinel):
    """A Sentinel that names a master until that is connected to, and from then on another one."""

    def __init__(self, first: Process, then: Process) -> None:
        self._first, self._then = first, then
        self._connections = self._count()
        super().__init__(first.port)

    def _count(self) -> int:
        count: int = self._first.admin.info("stats")["total_connections_received"]
        return count

    def _port(self) -> int:
        return (self._first if self._count() == self._connections else self._then).port


@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_a_master_that_is_back_after_another_was_promoted_grants_nothing(world: str) -> None:
    """S11: it was named before that, and connected to when it was back, a master without data."""
    with (
        closing(Process(server_program())) as old,
        closing(Process(server_program())) as new,
        LateSentinel(old, new) as sentinel,
    ):
        store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")
        if world == "threads":
            with SyncLimiter(store).hold(LIMIT, {"key": 1}):
                in_use = old.admin.dbsize(), new.admin.dbsize()
            store.close()
        else:
            async with Limiter(store).hold(LIMIT, {"key": 1}):
                in_use = old.admin.dbsize(), new.admin.dbsize()
            await store.aclose()
        assert in_use[0] == 0
        assert in_use[1] > 0


def connections_to(server: Process) -> set[str]:
    """Return the ids of all connections of clients."""
    return {client["id"] for client in server.admin.client_list()}


@pytest.mark.parametrize("idle", ["event loop", "threads"])
async def test_an_idle_connection_to_a_master_of_before_grants_nothing(idle: str) -> None:
    """S11: one connection of the store learnt of another master, so no call asks the old one."""
    with (
        closing(Process(server_program())) as old,
        closing(Process(server_program())) as new,
        FakeSentinel(old.port) as sentinel,
    ):
        store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")
        limiter, threads = Limiter(store), SyncLimiter(store)

        def hold_in_a_thread(key: str) -> None:
            with threads.hold(LIMIT, {"key": key}):
                pass

        async def hold(world: str, key: str) -> None:
            if world == "threads":
                await asyncio.to_thread(hold_in_a_thread, key)
                return
            async with limiter.hold(LIMIT, {"key": key}):
                pass

        other = "threads" if idle == "event loop" else "event loop"
        await hold(idle, "before")
        kept = connections_to(old)
        await hold(other, "before")
        sentinel.named = new.port
        for client in connections_to(old) - kept:
            old.admin.client_kill_filter(_id=client)
        await hold(other, "after")
        asked = old.commands().get("fcall", 0)
        await hold(idle, "after")
        assert old.commands().get("fcall", 0) == asked > 0
        await store.aclose()


def test_a_master_dies_under_load(sentinel: Sentinel, start: Callable[..., Worker]) -> None:
    """kill -9: all go on at the new one, nobody overlaps but by writes it did not get."""
    load = LoadProcesses(start, sentinel.url)
    load.until_progress()
    killed_at, promoted_at = sentinel.failover()
    load.until_progress()
    load.finish()
    load.check(lost_between=(killed_at, promoted_at))
    load.check_progress_since(promoted_at)


async def test_jobs_without_a_worker_keep_their_places_over_a_failover(sentinel: Sentinel) -> None:
    """S17: the gate that has workers has them at the new master, too; of the other, jobs wait."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("jobs"), max_concurrent=1, lease=60)
    names = [f"away-{number}" for number in range(3)]
    offered: list[str] = []
    served: list[str] = []
    await asyncio.to_thread(sentinel.until_whole)

    async def admit(gate: JobGate, name: str, order: int) -> Lease | Waiting | Held:
        return await gate.admit(Job(name, limit, ArgumentView({}, "work"), b"", order))

    def gate(name: str, notices: list[str]) -> JobGate:
        # A notice that is lost with the old master costs one claim.
        wake = lambda notice: notices.append(notice.id)  # noqa: E731
        return JobGate(sentinel.url, name, wake, claim=5.0)

    async with (
        Limiter(sentinel.url) as web,
        gate("queue:away", offered) as away,
        gate("queue:there", served) as there,
    ):

        def receivers(channel: str) -> list[int]:
            # On a busy machine the new one may be taken for dead, too, and replaced.
            asked = [each.admin.pubsub_numsub(channel) for each in sentinel.primaries()]
            return [count for [(_, count)] in asked]

        async def dormant() -> list[str]:
            seen = (await web.inspect(limit)).dormant
            return [waiter.id for each in seen for waiter in each.waiters]

        async def until_dormant(expected: list[str]) -> None:
            # A sweep that was on its way to the old master may be sent again, to the new one.
            async def is_so() -> bool:
                return await dormant() == expected

            await until_true(is_so, f"dormant: {expected}")

        held = await web.acquire(limit)
        for order, name in enumerate(names, 1):
            assert isinstance(await admit(away, name, order), Waiting)
        assert isinstance(await admit(there, "there", 10), Waiting)
        await away.leave()
        assert await dormant() == names
        [old] = sentinel.primaries()
        assert await asyncio.to_thread(old.admin.wait, 1, 5000) == 1, "the other has all of it"

        await asyncio.to_thread(sentinel.failover)
        # A notice before that would be lost, and the slot offered to the next one after a claim.
        await until(
            lambda: 2 in receivers("limiter:notices:0"),
            "both gates have subscribed to the new master",
        )
        await held.release()
        await until(lambda: served, "the job of the gate that is there is offered the slot")
        assert not offered
        await until_dormant(names)
        lease = await admit(there, "there", 10)
        assert isinstance(lease, Lease)
        await lease.release()
        async with web.hold(limit, timeout=5):
            away.arrive()
            await away.sweep()
            await until_dormant([])
        for count, name in enumerate(names, 1):
            await until(lambda count=count: len(offered) == count, "the next is offered the slot")
            assert offered == names[:count]
            lease = await admit(away, name, count)
            assert isinstance(lease, Lease)
            await lease.release()
        assert (await web.inspect(limit)).in_use == 0


@pytest.mark.slow  # a Sentinel demotes the old master up to ten seconds after it names the new
async def test_a_failover_by_order(sentinel: Sentinel) -> None:
    """The old master takes writes until it is demoted; then all go to the new one."""
    thread = asyncio.to_thread
    await thread(until_whole, sentinel)
    [old] = sentinel.primaries()
    async with Limiter(sentinel.url) as alimiter:
        with SyncLimiter(sentinel.url) as limiter:
            held = {"sync": limiter.acquire(LIMIT, {"key": "sync"})}
            alease = await alimiter.acquire(LIMIT, {"key": "async"})
            await thread(sentinel._sentinels[0].admin.sentinel_failover, SERVICE)

            def demoted() -> bool:
                with suppress(redis.ConnectionError):  # a Sentinel closes its connections then
                    return bool(old.admin.role()[0] == "slave")
                return False

            await thread(until_now, demoted, "the old master is demoted")
            [new] = sentinel.primaries()

            lease = held["sync"]
            assert lease is not None

            def settled(name: str, *, lost: bool) -> bool:
                record = new.admin.get(name) or "- 0"
                return lost or int(record.split()[1]) > time.time() * 1e6

            # The new master knows leases that ended there: their holders are notified.
            names = ("{limiter:key=sync}:state", "{limiter:key=async}:state")
            both = lambda: (  # noqa: E731
                settled(names[0], lost=lease.lost) and settled(names[1], lost=alease.lost)
            )
            await thread(until_now, both, "both are renewed there, or told that they are lost")
            await alease.release()
            await thread(lease.release)
            async with alimiter.hold(LIMIT, {"key": "sync"}, timeout=5):
                [new] = sentinel.primaries()
                assert await thread(new.admin.exists, "{limiter:key=sync}:state")
    await thread(until_whole, sentinel)


@pytest.mark.parametrize("world", [ThreadParty, LoopParty])
def test_a_holder_is_notified_in_time(sentinel: Sentinel, world: type[Party]) -> None:
    """Of an eviction at once after the grant."""
    [primary] = sentinel.primaries()
    party = world(RedisStore(sentinel.url))
    party.start()
    until_now(lambda: party.begun_at, "it has its slot")
    with SyncLimiter(sentinel.url) as other:
        [holder] = other.inspect(KEY).holders
        assert other.evict(holder.id)
        since = time.monotonic()
        seconds_until(lambda: party.notified_at, since, primary.url)
    party.end()
