"""What holds when the connection to the server fails, or the server is away for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore

from ._load import Load
from ._proxy import Proxy
from ._servers import Process, Server
from ._tools import until, until_now, until_waiting

KEY = "scope/key"
WORK = LIMIT_BY.constant("work")


@pytest.fixture
def proxy(own_server: Process) -> Iterator[Proxy]:
    with Proxy(own_server.port) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy) -> AsyncIterator[RedisStore]:
    """A store that reaches its server by way of the proxy."""
    store = RedisStore(f"{proxy.url}?socket_timeout=1")
    yield store
    proxy.let_pass()
    await store.aclose()


@pytest.fixture
async def own(own_server: Process) -> AsyncIterator[RedisStore]:
    """A store on a server of its own."""
    store = RedisStore(f"{own_server.url}?socket_timeout=1")
    yield store
    await store.aclose()


@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_an_answer_that_comes_when_its_lease_is_over_is_none(
    proxy: Proxy, world: str
) -> None:
    """S2: the caller asks again, and begins with a lease that lives; it is notified of no loss."""
    store = RedisStore(proxy.url)
    limiter, threads = Limiter(store), SyncLimiter(store)
    limit = ConcurrencyLimit(WORK, 1, lease=0.5)

    async def hold() -> float:
        async with limiter.hold(limit) as lease:
            return lease.expires_in()

    def hold_in_a_thread() -> float:
        with threads.hold(limit) as lease:
            return lease.expires_in()

    async def hold_once() -> float:
        return await (hold() if world == "event loop" else asyncio.to_thread(hold_in_a_thread))

    await hold_once()  # its connections are open
    proxy.hold_up()
    over_at = time.monotonic() + 0.6
    held = asyncio.create_task(hold_once())
    await until(lambda: time.monotonic() > over_at, "a lease that is asked for now would be over")
    proxy.let_pass()
    assert await held > 0
    await store.aclose()


async def test_a_subscription_is_killed_during_a_wait(server: Server, astore: RedisStore) -> None:
    """Row 15: what was said in between is learnt after the next subscription."""
    limit = ConcurrencyLimit(WORK, 1, lease=60)
    other = RedisStore(server.url)
    holder = await Limiter(other).acquire(limit)
    waiter = asyncio.create_task(Limiter(astore).acquire(limit))
    await until_waiting(Limiter(other), limit, 1)
    await until(lambda: astore.session.renewer.listening, "the renewer listens")
    with server.admin.pipeline(transaction=True) as at_once:
        at_once.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        at_once.execute()
    await holder.release()
    lease = await asyncio.wait_for(waiter, 2.0)
    await lease.release()
    await other.aclose()


async def test_messages_never_arrive(own_server: Process) -> None:
    """Rows 11, 15: a server that delivers no message costs a bounded delay, not a hang."""
    own_server.admin.execute_command(
        *("ACL", "SETUSER", "unsubscribed", "on", "nopass", "~*", "+@all", "resetchannels")
    )
    url = own_server.url.replace("redis://", "redis://unsubscribed:x@")
    store, other = RedisStore(url), RedisStore(own_server.url)
    limit = ConcurrencyLimit(WORK, 1, lease=1)
    holder = await Limiter(other).acquire(limit)
    waiter = asyncio.create_task(Limiter(store).acquire(limit))
    await until_waiting(Limiter(other), limit, 1)
    await holder.release()
    lease = await asyncio.wait_for(waiter, 3.0)
    await lease.release()
    await store.aclose()
    await other.aclose()


async def test_the_server_pauses(own_server: Process, own: RedisStore) -> None:
    """CLIENT PAUSE for less than a lease: nothing is lost."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=2)) as load:
        limiter = Limiter(own)
        lease = await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("long"), lease=2))
        for _ in range(3):
            own_server.admin.client_pause(400)
            await load.until_progress(20)
        assert not lease.lost
        await lease.release()
    assert load.errors == []
    load.recorder.assert_within("work", 2)


def test_threads_outlive_a_restart(own_server: Process) -> None:
    """Rows 16, 22."""
    store = RedisStore(f"{own_server.url}?socket_timeout=1")
    limiter = SyncLimiter(store)
    recorder = OverlapRecorder()
    stop = threading.Event()
    done: list[int] = []

    def call() -> None:
        while not stop.is_set():
            with limiter.hold(ConcurrencyLimit(WORK, 2, lease=1)), recorder.holding("work"):
                done.append(1)

    def until_progress() -> None:
        count = len(done) + 50
        until_now(lambda: len(done) >= count, "50 more bodies run")

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call) for _ in range(6)]
        try:
            until_progress()
            own_server.restart()
            until_progress()
        finally:
            stop.set()
        for each in calls:
            each.result(20.0)
    recorder.assert_within("work", 4)
    store.close()


async def test_replies_are_lost(proxy: Proxy, far: RedisStore) -> None:
    """S1; rows 9, 27: asked once more, the same call gets the same slot, and no second one."""
    limit = ConcurrencyLimit(WORK, 3, lease=5)
    async with Load(far, limit) as load:
        for number in range(12):
            proxy.losing = 1 + number % 3
            await load.until_progress(5)
    assert proxy.lost > 12
    assert load.errors == []
    load.recorder.assert_within("work", 3)
    assert (await Limiter(far).inspect(limit)).in_use == 0


def test_replies_to_threads_are_lost(own_server: Process, proxy: Proxy) -> None:
    """S1; rows 9, 27."""
    store = RedisStore(f"{proxy.url}?socket_timeout=1")
    limiter = SyncLimiter(store)
    limit = ConcurrencyLimit(WORK, 1, lease=5)
    for _ in range(20):
        proxy.losing = 1
        with limiter.hold(limit):
            assert limiter.inspect(limit).in_use == 1
    assert proxy.lost == 20
    assert limiter.inspect(limit).in_use == 0
    store.close()


async def test_the_way_is_slow(proxy: Proxy, far: RedisStore) -> None:
    """S1, S15; row 27: what is held up for longer than its caller waits is not left behind."""
    limiter = Limiter(far)
    limit = ConcurrencyLimit(WORK, 1, lease=5)
    await (await limiter.acquire(limit)).release()
    for delay in (0.0, 0.005, 0.02, 0.1):
        proxy.hold_up()
        asking = asyncio.create_task(asyncio.wait_for(limiter.acquire(limit), 0.02))
        await asyncio.sleep(delay)
        proxy.let_pass()
        with suppress(TimeoutError):
            await (await asking).release()
        async with limiter.hold(limit, timeout=2.0):
            assert (await limiter.inspect(limit)).in_use == 1
    assert (await limiter.inspect(limit)).in_use == 0


@pytest.mark.parametrize("how", ["silent", "gone"])
async def test_a_holder_is_told_before_its_lease_ends(
    how: str, proxy: Proxy, far: RedisStore
) -> None:
    """Rows 28, 29: whatever the way to the server does, the body ends while the slot is its own."""
    limiter = Limiter(far)
    limit = ConcurrencyLimit(WORK, 1, lease=6)
    moments: list[float] = []

    async def body() -> None:
        await until(lambda: far.session.renewer.listening, "the renewer runs")
        moments.append(time.monotonic())
        if how == "silent":
            proxy.hold_up()
        else:
            proxy.refusing = True
            proxy.hang_up()
        try:
            await asyncio.Event().wait()
        finally:
            moments.append(time.monotonic())

    with pytest.raises(LeaseLost, match="could not be reached"):
        await limiter.run(limit, body)
    began, ended = moments
    assert ended - began < 6.0, "the lease may have ended before"
    assert ended - began > 3.0, "it could have gone on for longer"


async def test_one_lost_renewal_is_no_loss(proxy: Proxy, far: RedisStore) -> None:
    """Row 29: away for a third of the lease."""
    limiter = Limiter(far)
    async with limiter.hold(ConcurrencyLimit(WORK, 1, lease=2)) as lease:
        await until(lambda: far.session.renewer.listening, "the renewer runs")
        for _ in range(3):
            proxy.refusing = True
            proxy.hang_up()
            await asyncio.sleep(0.6)
            proxy.refusing = False
            left = lease.expires_in()
            await until(lambda: lease.expires_in() > left, "it was renewed")  # noqa: B023
        assert not lease.lost


@pytest.mark.parametrize("in_loop", [False, True], ids=["threads", "asyncio"])
async def test_a_call_waits_for_the_store_to_come_back(
    in_loop: bool, proxy: Proxy, far: RedisStore
) -> None:
    """Away at acquire: retried for as long as the caller waits."""
    limit = ConcurrencyLimit(WORK, 1, lease=5)
    proxy.refusing = True

    async def ask(timeout: float | None) -> Any:
        if in_loop:
            return await Limiter(far).acquire(limit, timeout=timeout)
        return await asyncio.to_thread(SyncLimiter(far).acquire, limit, timeout=timeout)

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await ask(0.3)
    assert 0.3 <= time.monotonic() - began < 2.0
    asking = asyncio.create_task(ask(10.0))
    await asyncio.sleep(0.3)
    assert not asking.done()
    proxy.refusing = False
    lease = await asyncio.wait_for(asking, 5.0)
    if in_loop:
        await lease.release()
    else:
        await asyncio.to_thread(lease.release)


async def test_a_release_that_fails_does_not_fail_the_work(
    proxy: Proxy, far: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The lease ends by itself; the user's result stands."""
    limiter = Limiter(far)
    async with limiter.hold(ConcurrencyLimit(WORK, 1, lease=5)):
        proxy.refusing = True
        proxy.hang_up()
    assert "its lease ends by itself" in caplog.text
    proxy.refusing = False


async def test_calls_are_admitted_while_the_store_is_away(proxy: Proxy, far: RedisStore) -> None:
    """`on_store_error="admit"`: counted, and without a slot."""
    limiter = Limiter(far, on_store_error="admit")
    proxy.refusing = True
    async with limiter.hold(ConcurrencyLimit(WORK, 1)) as lease:
        assert lease.fencing_token == 0
    assert limiter.admitted_without_store == 1
    proxy.refusing = False
    async with limiter.hold(ConcurrencyLimit(WORK, 1)) as lease:
        assert lease.fencing_token > 0


async def test_the_server_freezes_and_comes_back(own_server: Process, own: RedisStore) -> None:
    """SIGSTOP of the server, for longer than a lease: holders are notified in time, all goes on."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=1)) as load:
        with own_server.frozen():
            await asyncio.sleep(1.5)
        await load.until_progress(50)
    load.recorder.assert_within("work", 2)
