"""Leases of holders that are busy or long, and steps over many records."""

from __future__ import annotations

import asyncio
import time

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Loss, Mode, Queued, Request
from limiter_core.testing import RecordingListener
from limiter_redis import RedisStore
from limiter_redis.protocol import commands
from limiter_redis.protocol.keyspace import redis_keys

from ._servers import Server
from ._tools import until_now

KEY = "scope/key"
WORK = LIMIT_BY.constant("work")


async def test_a_blocked_event_loop_keeps_its_lease(server: Server, astore: RedisStore) -> None:
    """Row 28: blocked for two leases; the renewer is a thread of its own."""
    limiter = Limiter(astore)
    limit = ConcurrencyLimit(WORK, 1, lease=1)
    other = SyncLimiter(RedisStore(server.url))
    async with limiter.hold(limit) as lease:
        time.sleep(2.1)  # noqa: ASYNC251
        assert not lease.lost
        assert other.try_acquire(limit) is None
        assert [each.id for each in other.inspect(limit).holders] == [lease.id]
    other._engine.store.close()  # type: ignore[attr-defined]


def test_a_long_body_keeps_its_lease(server: Server, store: RedisStore) -> None:
    """Row 7: it runs for longer than its lease, in a thread that does nothing else."""
    limiter = SyncLimiter(store)
    limit = ConcurrencyLimit(WORK, 1, lease=0.5)
    with limiter.hold(limit) as lease:
        ends = time.monotonic() + 1.2
        until_now(lambda: time.monotonic() > ends, "two leases have passed")
        lease.check()
        assert limiter.try_acquire(limit) is None


async def test_max_hold_below_the_lease_is_kept(server: Server, astore: RedisStore) -> None:
    """S2: the slot is held for so long, not lost at once, and not for longer."""
    limiter = Limiter(astore)
    limit = ConcurrencyLimit(WORK, 1, lease=30, max_hold=1.0)
    began = time.monotonic()
    with pytest.raises(LeaseLost, match="max_hold"):
        await limiter.run(limit, asyncio.Event().wait)
    assert 0.5 < time.monotonic() - began < 2.0


async def test_renewals_beside_releases_report_no_loss(server: Server, astore: RedisStore) -> None:
    """Row 14: a thousand short holds, renewed all the time."""
    limiter = Limiter(astore)
    lost: list[str] = []

    async def call(number: int) -> None:
        limit = ConcurrencyLimit(LIMIT_BY.constant(f"c{number}"), 1, lease=0.05, on_lost="warn")
        for _ in range(50):
            try:
                async with limiter.hold(limit) as lease:
                    await asyncio.sleep(0.001 * (number % 5))
                    if lease.lost and lease.expires_in() > 0:
                        lost.append(lease.id)
            except LeaseLost as error:
                if "before the lease ended" not in str(error):  # as on a busy machine an answer may
                    raise

    await asyncio.gather(*(call(number) for number in range(20)))
    assert lost == []


@pytest.mark.every_server
def test_one_step_stays_short_however_many_have_died(server: Server, store: RedisStore) -> None:
    """S16; rows 18, 19: 20,000 holders and waiters that ended at once."""
    face = store.sync_face()
    many = 20_000
    transport = store.session.sync_transport()
    requests = [
        Request(f"dead-{number}", (Demand(KEY, many // 2),), lease=3600.0) for number in range(many)
    ]
    for start in range(0, many, 128):
        transport.call([commands.acquire(each) for each in requests[start : start + 128]])
    names = redis_keys("{limiter:", KEY)
    ended = server.admin.zrange(names[1], 0, -1)
    assert len(ended) == many
    for start in range(0, many, 5000):  # and suddenly their leases have ended
        server.admin.zadd(names[1], dict.fromkeys(ended[start : start + 5000], 1))
    server.admin.config_resetstat()
    transport.call([commands.sweep(KEY)])
    assert sum(server.commands().values()) < 128 * 30, "a chunk to reap, and one to serve"
    assert server.admin.zcard(names[1]) > many - 1000
    alive = Request("alive", (Demand(KEY, 1),), lease=60)
    face.acquire(alive)
    assert isinstance(face.acquire(alive), Granted)
    assert face.inspect(KEY).in_use == 1
    face.release("alive")


def test_a_cost_of_thousands(store: RedisStore) -> None:
    """Row 19."""
    face = store.sync_face()
    wide = Request("wide", (Demand(KEY, 10_000, 9000),), lease=60)
    assert isinstance(face.acquire(wide), Granted)
    assert isinstance(face.acquire(Request("next", (Demand(KEY, 10_000, 1001),))), Queued)
    assert face.release("wide")
    assert isinstance(face.acquire(Request("next", (Demand(KEY, 10_000, 1001),))), Granted)
    assert face.release("next")


def test_renewing_thousands_at_once(store: RedisStore) -> None:
    """Row 19: the renewer renews in batches."""
    face = store.sync_face()
    listeners = [RecordingListener() for _ in range(1000)]
    for number, listener in enumerate(listeners):
        demands = (Demand(f"scope/k{number}", 1),)
        face.acquire(Request(f"r{number}", demands, lease=1.5, listener=listener))
    until_now(lambda: all(each.ends for each in listeners), "all were renewed")
    assert not [each for each in listeners if each.losses]
    for number in range(1000):
        assert face.release(f"r{number}", (f"scope/k{number}",))


def test_a_reclaimed_lease_is_never_one_too_many(server: Server, store: RedisStore) -> None:
    """S10."""
    face = store.sync_face()
    first = face.acquire(Request("first", (Demand(KEY, 1),), lease=60))
    assert isinstance(first, Granted)
    server.admin.flushdb()
    assert isinstance(face.acquire(Request("second", (Demand(KEY, 1),), lease=60)), Granted)
    again = Request("first", (Demand(KEY, 1),), 60, Mode.RECLAIM, fencing_token=first.fencing_token)
    assert not isinstance(face.acquire(again), Granted)
    assert set(face.renew(["first"]).gone.values()) == {Loss.FORGOTTEN}
    face.release("second")
