"""What holds when the server, or the way to it, fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
    LimiterError,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Loss, Mode, Queued, Request
from limiter_core.testing import OverlapRecorder, RecordingListener
from limiter_redis import RedisStore
from limiter_redis.protocol import commands
from limiter_redis.protocol.keyspace import Keyspace

from ._proxy import Proxy
from ._servers import PATIENCE, Process, Server
from ._tools import until, until_now, until_true

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


class Load:
    """Calls that take turns in this process, and a witness of how many hold at once."""

    def __init__(self, store: RedisStore, limit: ConcurrencyLimit, *, at_once: int = 12) -> None:
        self.recorder = OverlapRecorder()
        self.errors: list[LimiterError] = []
        self.tokens: list[int] = []
        self.done = 0
        self._limiter = Limiter(store)
        self._limit = limit
        self._at_once = at_once
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._at_once)]
        await until(lambda: self.done > self._at_once, "the load runs")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 20.0)

    async def goes_on(self, calls: int = 30) -> None:
        """Wait until so many more bodies have run."""
        count = self.done + calls
        await until(lambda: self.done >= count, f"{calls} more bodies run")

    async def _call(self) -> None:
        while not self._stopping:
            try:
                async with self._limiter.hold(self._limit) as lease:
                    with self.recorder.holding("work"):
                        self.tokens.append(lease.fencing_token)
                        await asyncio.sleep(0.001)
                self.done += 1
            except LimiterError as error:
                self.errors.append(error)


# -- scripts and data ------------------------------------------------------------------------------


@pytest.mark.every_server
async def test_scripts_are_flushed_before_every_call(server: Server, astore: RedisStore) -> None:
    """Rows 16, 17: also in batches, and by the keeper."""
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
            await load.goes_on(100)
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
            await load.goes_on(40)
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
    """S10; row 22: never above the limit; the first holder is told within a lease."""
    limiter = Limiter(own)
    limit = ConcurrencyLimit(WORK, 1, lease=1)
    first = await limiter.acquire(limit)
    own_server.admin.flushall()
    second = await limiter.acquire(limit)
    assert second.fencing_token > first.fencing_token, "S11"
    await until(lambda: first.lost, "the first holder is told", patience=1.0)
    assert not second.lost
    await first.release()
    assert (await limiter.inspect(limit)).in_use == 1
    await second.release()


async def test_waiters_keep_their_order_over_data_loss(
    own_server: Process, own: RedisStore
) -> None:
    """S7, S10: they ask again, each with its place in line."""
    limiter = Limiter(own)
    limit = ConcurrencyLimit(WORK, 1, lease=0.6)
    # Renewed more often than those who wait, so that it is back before them.
    holder = await limiter.acquire(limit)
    patient = ConcurrencyLimit(WORK, 1, lease=6)
    served: list[int] = []

    async def wait(number: int) -> None:
        async with limiter.hold(patient):
            served.append(number)

    tasks = []
    for number in range(10):
        tasks.append(asyncio.create_task(wait(number)))
        await until_waiting(limiter, limit, number + 1)
    own_server.admin.flushall()
    await until_waiting(limiter, limit, 10)
    await holder.release()
    await asyncio.wait_for(asyncio.gather(*tasks), 10.0)
    assert served == list(range(10))


async def until_waiting(limiter: Limiter, limit: ConcurrencyLimit, count: int) -> None:
    async def enough() -> bool:
        return (await limiter.inspect(limit)).waiting == count

    await until_true(enough, f"{count} wait")


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.every_server
async def test_connections_are_killed_under_load(server: Server, astore: RedisStore) -> None:
    """Row 26: CLIENT KILL of all kinds, again and again; nobody notices."""
    async with Load(astore, ConcurrencyLimit(WORK, 3, lease=2)) as load:
        for _ in range(10):
            for kind in ("normal", "pubsub"):
                server.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await load.goes_on(20)
    assert load.errors == []
    load.recorder.assert_within("work", 3)


async def test_a_subscription_is_killed_during_a_wait(server: Server, astore: RedisStore) -> None:
    """Row 15: what was said in between is learnt after the next subscription."""
    limit = ConcurrencyLimit(WORK, 1, lease=60)
    other = RedisStore(server.url)
    holder = await Limiter(other).acquire(limit)
    waiter = asyncio.create_task(Limiter(astore).acquire(limit))
    await until_waiting(Limiter(other), limit, 1)
    await until(lambda: astore.session.renewer.listening, "the keeper listens")
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
        *("ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "resetchannels")
    )
    url = own_server.url.replace("redis://", "redis://deaf:x@")
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
            await load.goes_on(20)
        assert not lease.lost
        await lease.release()
    assert load.errors == []
    load.recorder.assert_within("work", 2)


async def test_the_server_restarts_under_load(own_server: Process, own: RedisStore) -> None:
    """Rows 16, 22: empty, and without its scripts; all goes on by itself."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=1)) as load:
        own_server.restart()
        await load.goes_on(50)
        own_server.restart()
        await load.goes_on(50)
    load.recorder.assert_within("work", 4)
    assert all(isinstance(error, LeaseLost) for error in load.errors)


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

    def goes_on() -> None:
        count = len(done) + 50
        until_now(lambda: len(done) >= count, "50 more bodies run")

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call) for _ in range(6)]
        try:
            goes_on()
            own_server.restart()
            goes_on()
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
            await load.goes_on(5)
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


# -- the store is away -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["silent", "gone"])
async def test_a_holder_is_told_before_its_lease_ends(
    how: str, proxy: Proxy, far: RedisStore
) -> None:
    """Rows 28, 29: whatever the way to the server does, the body ends while the slot is its own."""
    limiter = Limiter(far)
    limit = ConcurrencyLimit(WORK, 1, lease=3)
    moments: list[float] = []

    async def body() -> None:
        await until(lambda: far.session.renewer.listening, "the keeper runs")
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
    assert ended - began < 3.0, "the lease may have ended before"
    assert ended - began > 1.5, "it could have gone on for longer"


async def test_one_lost_renewal_is_no_loss(proxy: Proxy, far: RedisStore) -> None:
    """Row 29: away for a third of the lease."""
    limiter = Limiter(far)
    async with limiter.hold(ConcurrencyLimit(WORK, 1, lease=2)) as lease:
        await until(lambda: far.session.renewer.listening, "the keeper runs")
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
    """SIGSTOP of the server, for longer than a lease: holders are told in time, all goes on."""
    async with Load(own, ConcurrencyLimit(WORK, 2, lease=1)) as load:
        with own_server.frozen():
            await asyncio.sleep(1.5)
        await load.goes_on(50)
    load.recorder.assert_within("work", 2)


# -- the holder's own faults -----------------------------------------------------------------------


async def test_a_blocked_event_loop_keeps_its_lease(server: Server, astore: RedisStore) -> None:
    """Row 28: blocked for two leases; the keeper is a thread of its own."""
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
            async with limiter.hold(limit) as lease:
                await asyncio.sleep(0.001 * (number % 5))
                if lease.lost and lease.expires_in() > 0:
                    lost.append(lease.id)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert lost == []


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.every_server
def test_one_step_stays_short_however_many_have_died(server: Server, store: RedisStore) -> None:
    """S16; rows 18, 19: 20,000 holders and waiters that ended at once."""
    face = store.sync_face()
    many = 20_000
    wire = store.session.sync_transport()
    requests = [
        Request(f"dead-{number}", (Demand(KEY, many // 2),), lease=3600.0) for number in range(many)
    ]
    for start in range(0, many, 128):
        wire.call([commands.acquire(each) for each in requests[start : start + 128]])
    names = Keyspace("limiter").redis_keys(KEY)
    ended = server.admin.zrange(names[1], 0, -1)
    assert len(ended) == many
    for start in range(0, many, 5000):  # and suddenly their leases have ended
        server.admin.zadd(names[1], dict.fromkeys(ended[start : start + 5000], 1))
    server.admin.config_resetstat()
    wire.call([commands.sweep(KEY)])
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
    """Row 19: the keeper renews in batches."""
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
