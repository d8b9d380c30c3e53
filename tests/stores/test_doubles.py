"""`UnlimitedStore`, `FullStore`, `AwaitedStore`: stores for tests of code that uses a limiter."""

from __future__ import annotations

import anyio
import pytest

from limiter_core import (
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    LeaseLost,
    Limiter,
    LimitReached,
    QueueFull,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.requests import Demand, Granted, Mode, Queued, Refusal, Refused, Request
from limiter_core.store import Store
from limiter_core.testing import AwaitedStore, FakeClock, FullStore, UnlimitedStore

LIMIT = ConcurrencyLimit("customer", max_concurrent=1)
OF_ONE = {"customer": 1}


def request(*demands: Demand, id="call", **values) -> Request:  # noqa: A002  (a field's name)
    return Request(id, demands or (Demand("key", 1),), **values)


@pytest.mark.parametrize("kind", [UnlimitedStore, FullStore])
def test_they_are_stores(kind):
    store = kind()
    assert isinstance(store, Store)
    assert not store.capabilities.suspends
    assert store.sync_face() is store
    assert isinstance(store.async_face(), AwaitedStore)


@pytest.mark.parametrize("kind", [UnlimitedStore, FullStore])
def test_an_operator_has_no_effect_on_them(kind):
    store = kind()
    before = store.acquire(request())
    store.set_limit("key", 7)
    store.pause("key")
    store.sweep()
    store.on_notice(print)
    store.close()
    assert type(store.acquire(request(id="other"))) is type(before)
    store.resume("key")
    store.reset_limit("key")
    assert store.inspect("key").override is None
    assert not store.inspect("key").paused


# -- UnlimitedStore ----------------------------------------------------------------------------


def test_unlimited_admits_everybody_at_once():
    limiter = SyncLimiter(UnlimitedStore())
    leases = [limiter.try_acquire(LIMIT, OF_ONE) for _ in range(50)]
    tokens = [lease.fencing_token for lease in leases]
    assert tokens == sorted(set(tokens))
    assert limiter.inspect(LIMIT, OF_ONE).in_use == 50
    for lease in leases:
        lease.release()
    assert limiter.inspect(LIMIT, OF_ONE).in_use == 0
    assert list(limiter.keys()) == []


async def test_unlimited_admits_everybody_in_the_event_loop():
    limiter = Limiter(UnlimitedStore())

    @limiter.limited(LIMIT)
    async def body(customer):
        return customer

    async with limiter.hold(LIMIT, OF_ONE), limiter.hold(LIMIT, OF_ONE):
        assert await body(1) == 1
        assert [key async for key in limiter.keys()] == [await limiter.key_for(LIMIT, OF_ONE)]


def test_unlimited_answers_a_repeat_alike():
    """S1."""
    store = UnlimitedStore()
    first = store.acquire(request())
    assert store.acquire(request()) == first
    assert store.inspect("key").in_use == 1


def test_unlimited_tells_of_its_holders():
    clock = FakeClock()
    store = UnlimitedStore(clock=clock)
    granted = store.acquire(request(Demand("key", 3, 2), Demand("other", 9), label="host:1"))
    assert granted == Granted(int(clock() * 1_000_000), None)
    clock.advance(5)
    store.acquire(request(Demand("key", 1), id="second"))
    snapshot = store.inspect("key")
    assert (snapshot.in_use, snapshot.limit, snapshot.declared) == (3, 3, (1, 3))
    first, second = snapshot.holders
    assert (first.id, first.cost, first.limit, first.label) == ("call", 2, 3, "host:1")
    assert (first.held_for, first.fencing_token) == (5, granted.fencing_token)
    assert second.held_for == 0
    assert sorted(store.keys()) == ["key", "other"]


def test_unlimited_renews_what_it_knows():
    store = UnlimitedStore()
    store.acquire(request())
    assert set(store.renew(["call", "nobody"]).gone) == {"nobody"}
    assert store.release("call") is True
    assert store.release("call") is False
    assert set(store.renew(["call"]).gone) == {"call"}


async def test_unlimited_takes_a_lease_away():
    """To test what a body does that loses it."""
    limiter = Limiter(UnlimitedStore())
    began = anyio.Event()

    async def hold():
        async with limiter.hold(LIMIT, OF_ONE):
            began.set()
            await anyio.sleep_forever()

    async def lose():
        with pytest.raises(LeaseLost):
            await hold()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lose)
        await began.wait()
        [holder] = (await limiter.inspect(LIMIT, OF_ONE)).holders
        assert await limiter.evict(holder.id)
    assert not await limiter.evict(holder.id)


# -- FullStore ---------------------------------------------------------------------------------


def test_full_refuses_a_try():
    limiter = SyncLimiter(FullStore())
    assert limiter.try_acquire(LIMIT, OF_ONE) is None
    assert list(limiter.keys()) == []


def test_full_refuses_under_cancel():
    limiter = SyncLimiter(FullStore())
    limit = ConcurrencyLimit("customer", max_concurrent=3, on_conflict=ConflictResolution.CANCEL)
    with pytest.raises(LimitReached) as raised:
        limiter.acquire(limit, OF_ONE)
    assert (raised.value.max_concurrent, raised.value.in_use) == (3, 3)


def test_full_lets_wait_until_the_timeout():
    limiter = SyncLimiter(FullStore())
    with pytest.raises(WaitTimeout):
        limiter.acquire(LIMIT, OF_ONE, timeout=0.01)
    assert list(limiter.keys()) == []


async def test_full_lets_wait_until_the_timeout_in_the_event_loop():
    limiter = Limiter(FullStore())
    with pytest.raises(WaitTimeout):
        async with limiter.hold(LIMIT, OF_ONE, timeout=0.01):
            pytest.fail("nobody is admitted")
    assert (await limiter.inspect(LIMIT, OF_ONE)).waiting == 0


def test_full_refuses_a_cost_above_the_limit():
    store = FullStore()
    answer = store.acquire(request(Demand("key", 2, 3)))
    assert answer == Refused("key", 2, 0, None, Refusal.COST)
    limiter = SyncLimiter(store)
    with pytest.raises(ConfigurationError):
        limiter.acquire(ConcurrencyLimit("customer", cost=lambda _: 2), OF_ONE)


def test_full_keeps_max_waiting():
    """S13."""
    store = FullStore()
    demand = Demand("key", 1, max_waiting=1)
    assert isinstance(store.acquire(request(demand, id="first")), Queued)
    answer = store.acquire(request(demand, id="second"))
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.QUEUE_FULL
    assert isinstance(store.acquire(request(demand, id="first")), Queued)
    with pytest.raises(QueueFull):
        SyncLimiter(FullStore()).acquire(ConcurrencyLimit("customer", max_waiting=0), OF_ONE)


def test_full_tells_of_its_waiters():
    clock = FakeClock()
    store = FullStore(clock=clock)
    first = store.acquire(request(Demand("key", 2), Demand("other", 1), id="first"))
    clock.advance(3)
    second = store.acquire(request(Demand("key", 3, 2, priority=4, group="g"), id="second"))
    assert first == Queued("key", 2, 2, int((clock() - 3) * 1_000_000), None)
    assert second.order > first.order
    snapshot = store.inspect("key")
    assert (snapshot.limit, snapshot.in_use, snapshot.waiting) == (3, 3, 2)
    assert snapshot.declared == (2, 3)
    waiter = snapshot.waiters[1]
    assert (waiter.id, waiter.cost, waiter.priority, waiter.group) == ("second", 2, 4, "g")
    assert [waiter.waiting_for for waiter in snapshot.waiters] == [3, 0]
    assert store.inspect("other").waiting == 0
    assert store.release("first") is True
    assert store.inspect("key").waiting == 1


def test_full_evicts_nobody():
    store = FullStore()
    store.acquire(request())
    assert store.evict("call") is False
    assert store.inspect("key").waiting == 1


def test_full_refuses_a_reclaim():
    """S10: never above the limit."""
    assert isinstance(FullStore().acquire(request(mode=Mode.RECLAIM)), Refused)


# -- AwaitedStore ------------------------------------------------------------------------------


async def test_every_operation_reaches_the_store():
    clock = FakeClock()
    store = UnlimitedStore(clock=clock)
    face = AwaitedStore(store)
    assert face.now() == clock()
    granted = await face.acquire(request())
    assert store.acquire(request()) == granted
    assert (await face.inspect("key")) == store.inspect("key")
    assert [key async for key in face.keys()] == ["key"]
    assert set((await face.renew(["call", "nobody"])).gone) == {"nobody"}
    assert await face.release("call", ("key",)) is True
    assert await face.evict("call") is False
    await face.set_limit("key", 3)
    await face.reset_limit("key")
    await face.pause("key")
    await face.resume("key")
    await face.sweep()
    face.on_notice(None)
    await face.aclose()
    assert store.inspect("key").in_use == 0
