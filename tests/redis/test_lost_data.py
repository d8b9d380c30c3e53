"""What holds when scripts or data are lost, and under load when connections end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
)
from limiter_redis import RedisStore

from ._load import Load
from ._servers import PATIENCE, Process, Server
from ._tools import until, until_true, until_waiting

KEY = "scope/key"
WORK = LIMIT_BY.constant("work")


@pytest.fixture
async def own(own_server: Process) -> AsyncIterator[RedisStore]:
    """A store on a server of its own."""
    store = RedisStore(f"{own_server.url}?socket_timeout=1")
    yield store
    await store.aclose()


@pytest.mark.every_server
async def test_scripts_are_flushed_before_every_call(server: Server, astore: RedisStore) -> None:
    """Rows 16, 17: also in batches, and by the renewer."""
    stop = threading.Event()

    def flush() -> None:
        while not stop.wait(0.001):
            server.admin.script_flush()

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        async with Load(astore, ConcurrencyLimit(WORK, 3, lease=1.5)) as load:
            limiter = Limiter(astore)
            leases = [
                await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant(f"c{n}"), lease=1.5))
                for n in range(50)
            ]
            await load.until_progress(100)
            ends = time.monotonic() + 3.0
            await until(lambda: time.monotonic() > ends, "two leases have passed")
            assert not [lease for lease in leases if lease.lost]
            await asyncio.gather(*(lease.release() for lease in leases))
    finally:
        stop.set()
        flusher.join(PATIENCE)
    assert load.errors == []
    load.recorder.assert_within("work", 3)


async def test_everything_is_flushed_under_load(own_server: Process, own: RedisStore) -> None:
    """S10, S11; row 22: it goes on; no more than the limit but for those who held; tokens rise."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=0.6)) as load:
        for _ in range(5):
            own_server.admin.flushall()
            await load.until_progress(40)
    # A holder that the flush surprised may run on beside those who came after, for a lease.
    load.recorder.assert_within("work", 4)
    assert all(isinstance(error, LeaseLost) for error in load.errors)
    assert len(set(load.tokens)) == len(load.tokens)


async def test_holders_survive_data_loss(own_server: Process, own: RedisStore) -> None:
    """S10; rows 21, 22: the slot is asked for again with the next renewal, and nobody gets in."""
    limiter = Limiter(own)
    limit = ConcurrencyLimit(WORK, 2, lease=0.6)
    leases = [await limiter.acquire(limit) for _ in range(2)]
    tokens = [lease.fencing_token for lease in leases]
    own_server.admin.flushall()
    face = own.async_face()
    key = await limiter.key_for(limit)

    async def all_are_back() -> bool:
        return (await face.inspect(key)).in_use == 2

    await until_true(all_are_back, "both hold again")
    snapshot = await face.inspect(key)
    assert sorted(each.fencing_token for each in snapshot.holders) == tokens
    assert not [lease for lease in leases if lease.lost]
    assert await limiter.try_acquire(limit) is None
    for lease in leases:
        await lease.release()
    assert (await face.inspect(key)).in_use == 0


async def test_a_slot_taken_by_another_after_data_loss_is_lost(
    own_server: Process, own: RedisStore
) -> None:
    """S10; row 22: never above the limit; the first holder is notified within a lease."""
    limiter = Limiter(own)
    # Renewed after 8 s or more, when the other one has the slot long since.
    limit = ConcurrencyLimit(WORK, 1, lease=30)
    first = await limiter.acquire(limit)
    own_server.admin.flushall()
    second = await limiter.acquire(limit, timeout=20)
    assert second.fencing_token > first.fencing_token, "S11"
    await until(lambda: first.lost, "the first holder is notified", patience=1.0)
    assert not second.lost
    await first.release()
    assert (await limiter.inspect(limit)).in_use == 1
    await second.release()


async def test_waiters_keep_their_order_over_data_loss(
    own_server: Process, own: RedisStore
) -> None:
    """S7, S10: they ask again, each with its place in line."""
    limiter = Limiter(own)
    limit = ConcurrencyLimit(WORK, 1, lease=3)
    # Renewed after a second, and those who wait after four, so it is back before them.
    holder = await limiter.acquire(limit)
    patient = ConcurrencyLimit(WORK, 1, lease=30)
    served: list[int] = []

    async def wait(number: int) -> None:
        async with limiter.hold(patient):
            served.append(number)

    # In one turn of the loop, so that the first one is not looked at before the holder.
    tasks = [asyncio.create_task(wait(number)) for number in range(10)]
    await until_waiting(limiter, limit, 10)
    own_server.admin.flushall()
    await until_waiting(limiter, limit, 10)
    assert not holder.lost, "it asks before those who wait"
    await holder.release()
    await asyncio.wait_for(asyncio.gather(*tasks), 10.0)
    assert served == list(range(10))


@pytest.mark.every_server
async def test_connections_are_killed_under_load(server: Server, astore: RedisStore) -> None:
    """Row 26: CLIENT KILL of all kinds, again and again; nobody notices."""
    async with Load(astore, ConcurrencyLimit(WORK, 3, lease=2)) as load:
        for _ in range(10):
            for kind in ("normal", "pubsub"):
                server.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await load.until_progress(20)
    assert load.errors == []
    load.recorder.assert_within("work", 3)


async def test_the_server_restarts_under_load(own_server: Process, own: RedisStore) -> None:
    """Rows 16, 22: empty, and without its scripts; all goes on by itself."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=1)) as load:
        own_server.restart()
        await load.until_progress(50)
        own_server.restart()
        await load.until_progress(50)
    load.recorder.assert_within("work", 4)
    assert all(isinstance(error, LeaseLost) for error in load.errors)
