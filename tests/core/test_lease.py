"""Leases: fencing tokens, ends, losses, and that a late loss never harms a finished body."""

from __future__ import annotations

import math
import time

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from limiter_core import LIMIT_BY, ConcurrencyLimit, Lease, LeaseLost, Limiter, SyncLimiter
from limiter_memory import MemoryStore

from ._tools import Thread, keys_in_use, until, until_now, until_waiting

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY)
WARN = ConcurrencyLimit(KEY, on_lost="warn")
SHORT = ConcurrencyLimit(KEY, max_hold=0.02)


async def test_a_lease_knows_itself(limiter):
    async with limiter.hold(ONE) as lease:
        assert lease.keys == ("key",)
        assert lease.id in repr(lease)
        assert repr(lease).endswith("held>")
        assert not lease.lost
        assert lease.expires_in() == math.inf
        lease.check()
    assert repr(lease).endswith("released>")
    assert not lease.lost
    assert lease.expires_in() == 0.0
    lease.check()


async def test_ids_are_unique(limiter, threads):
    many = ConcurrencyLimit(KEY, max_concurrent=100)
    leases = [await limiter.acquire(many) for _ in range(50)]
    sync_leases = [threads.acquire(many) for _ in range(50)]
    assert len({lease.id for lease in [*leases, *sync_leases]}) == 100
    for lease in leases:
        await lease.release()
    for lease in sync_leases:
        lease.release()


async def test_fencing_tokens_rise_from_grant_to_grant(limiter, threads):
    tokens: list[int] = []
    for _ in range(100):
        async with limiter.hold(ONE) as lease:
            tokens.append(lease.fencing_token)
        with threads.hold(ONE) as lease:
            tokens.append(lease.fencing_token)
    assert tokens == sorted(set(tokens))


async def test_fencing_tokens_rise_along_a_queue(store, limiter):
    tokens: list[int] = []

    async def call() -> None:
        async with limiter.hold(ONE) as lease:
            tokens.append(lease.fencing_token)

    async with anyio.create_task_group() as tasks, limiter.hold(ONE) as lease:
        tokens.append(lease.fencing_token)
        for _ in range(20):
            tasks.start_soon(call)
        await until_waiting(store, "key", 20)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 21


async def test_releasing_twice_frees_one_slot_once(limiter):
    first = await limiter.acquire(ONE)
    await first.release()
    second = await limiter.acquire(ONE)
    await first.release()
    assert (await limiter.inspect("key")).in_use == 1
    await second.release()
    assert await keys_in_use(limiter) == []


async def test_a_hold_whose_lease_was_released_inside_ends_well(limiter):
    async with limiter.hold(ONE) as lease:
        await lease.release()
        async with limiter.hold(ONE):
            pass
    assert await keys_in_use(limiter) == []


async def cancelled_by(limiter: Limiter, limit: ConcurrencyLimit, loss: list[LeaseLost]) -> None:
    """Hold for ever, and note what ends it."""
    try:
        async with limiter.hold(limit):
            await anyio.sleep_forever()
    except LeaseLost as error:
        loss.append(error)


async def test_an_evicted_body_is_cancelled_with_the_reason(store, limiter):
    loss: list[LeaseLost] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled_by, limiter, ONE, loss)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        await limiter.evict(store.inspect("key").holders[0].id)
    assert loss[0].reason == "it was evicted"


async def test_an_eviction_from_another_thread_cancels_the_body(store, limiter, threads):
    loss: list[LeaseLost] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled_by, limiter, ONE, loss)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        assert await anyio.to_thread.run_sync(threads.evict, store.inspect("key").holders[0].id)
    assert loss[0].reason == "it was evicted"


async def test_max_hold_cancels_the_body(limiter):
    loss: list[LeaseLost] = []
    await cancelled_by(limiter, SHORT, loss)
    assert loss[0].reason == "it was held longer than its max_hold"
    assert await keys_in_use(limiter) == []


async def test_the_shortest_max_hold_counts(limiter):
    other = ConcurrencyLimit(LIMIT_BY.constant("other"), max_hold=60)
    async with limiter.hold([other, SHORT], timeout=1) as lease:
        assert lease.expires_in() <= 0.02


async def test_max_hold_is_seen_by_a_thread(threads):
    with threads.hold(SHORT) as lease:
        assert lease.expires_in() <= 0.02
        until_now(lambda: lease.lost, "the lease is lost")
        with pytest.raises(LeaseLost, match="longer than its max_hold"):
            lease.check()
        assert lease.expires_in() == 0.0


async def test_max_hold_counts_from_the_grant_and_not_from_the_wait(store, limiter):
    bounded = ConcurrencyLimit(KEY, max_hold=60)
    left: list[float] = []

    async def call() -> None:
        async with limiter.hold(bounded) as lease:
            left.append(lease.expires_in())

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(call)
        await until_waiting(store, "key", 1)
        granted_after = time.monotonic()
    assert left[0] > 60 - (time.monotonic() - granted_after) - 0.01


async def test_on_lost_warn_lets_the_body_finish(limiter, caplog):
    async with limiter.hold(WARN) as lease:
        await limiter.evict(lease.id)
        await anyio.sleep(0.001)
        assert lease.lost
        with pytest.raises(LeaseLost):
            lease.check()
    assert lease.lost
    assert caplog.text.count("it was evicted") == 1


async def test_one_limit_that_cancels_is_enough(limiter):
    other = ConcurrencyLimit(LIMIT_BY.constant("other"))
    with pytest.raises(LeaseLost):
        await _evicted_in(limiter, [WARN, other])


async def _evicted_in(limiter: Limiter, limits) -> None:
    async with limiter.hold(limits) as lease:
        await limiter.evict(lease.id)
        await anyio.sleep_forever()


async def test_an_acquired_lease_is_told_of_its_loss_and_cancels_nothing(limiter):
    lease = await limiter.acquire(ONE)
    await limiter.evict(lease.id)
    await anyio.sleep(0.001)
    assert lease.lost
    with pytest.raises(LeaseLost, match="evicted"):
        lease.check()
    await lease.release()


async def test_a_body_that_evicts_itself_and_finishes_is_no_failure(limiter):
    async with limiter.hold(ONE) as lease:
        await limiter.evict(lease.id)
    await anyio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    assert lease.lost


async def test_a_loss_after_the_end_is_none(limiter):
    async with limiter.hold(ONE) as lease:
        pass
    assert not await limiter.evict(lease.id)
    await anyio.lowlevel.checkpoint()
    assert not lease.lost


@pytest.mark.parametrize("spins", range(4))
async def test_a_body_that_ends_beside_its_eviction_is_cancelled_or_done_never_both(
    store, limiter, spins
):
    outcome: list[str] = []

    async def body() -> None:
        finished = False
        try:
            async with limiter.hold(ONE):
                await started.wait()
                finished = True
        except LeaseLost:
            outcome.append("lost")
            assert not finished
        else:
            outcome.append("done")
        await anyio.lowlevel.checkpoint()
        outcome.append("lives")

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        holder = store.inspect("key").holders[0].id
        started.set()
        for _ in range(spins):
            await anyio.lowlevel.checkpoint()
        await limiter.evict(holder)
    assert outcome[1:] == ["lives"]


async def test_a_body_that_survives_its_cancellation_is_no_failure(limiter):
    async with limiter.hold(ONE) as lease:
        await limiter.evict(lease.id)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            if not lease.lost:
                raise


async def test_what_the_body_raises_when_it_is_cancelled_wins(limiter):
    with pytest.raises(LookupError, match="cleanup"):
        await _fails_in_cleanup(limiter)
    await anyio.lowlevel.checkpoint()


async def _fails_in_cleanup(limiter: Limiter) -> None:
    async with limiter.hold(ONE) as lease:
        await limiter.evict(lease.id)
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("cleanup")


def test_a_thread_that_finishes_after_its_loss_is_no_failure(store, threads):
    def body() -> Lease:
        with threads.hold(ONE) as lease:
            threads.evict(lease.id)
        return lease

    assert Thread(body).result().lost


def test_an_injected_clock_decides_about_ends():
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    limiter = SyncLimiter(store)
    lease = limiter.acquire(ConcurrencyLimit(KEY, max_hold=10))
    now += 9.9
    assert not lease.lost
    assert limiter.try_acquire(ONE) is None
    now += 0.2
    assert lease.lost
    successor = limiter.try_acquire(ONE)
    assert successor is not None
    assert successor.fencing_token > lease.fencing_token
    lease.release()
    assert limiter.inspect("key").in_use == 1
    successor.release()
