"""The ways in which concurrency limiters break, each with the test that would catch it.

Rows 1 to 36 are the known ones. Those that need a server, a network or clients with clocks of
their own come with the network store: 1 (clocks of clients), 3 (timestamps joined as text),
6 (crash of a process), 15 (gap in messages), 16 and 17 (scripts forgotten), 19 (script
arguments), 20 (numbers of the script), 21 (failover), 22 (lost data), 23 (exhausted pool),
25 (flooded cluster), 29 (one failed renewal). Covered at length beside their subjects:

    row  9  a token lost to a cancelled waiter      test_cancellation_sweep
    row 10  cancelled, then granted                 test_cancellation
    row 26  cancelled in the release                test_cancellation_sweep
    row 27  a timeout around acquire                test_cancellation
    row 30  fork                                    test_lifecycle
    row 31  a second event loop                     test_lifecycle
    row 32  keys that collide                       test_keys
    row 33  values that look alike                  test_key_values
"""

from __future__ import annotations

import time

import anyio
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
    QueueFull,
    SyncLimiter,
    WaitTimeout,
)
from limiter_memory import MemoryStore

from ._named_calls import NamedCalls
from ._stores import RemoteStore
from ._tools import Thread, until, until_now, until_waiting, until_waiting_now

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY)
TWO = ConcurrencyLimit(KEY, max_concurrent=2)


@pytest.mark.parametrize("jump", [60, -60])
def test_row_02_a_clock_that_jumps_ends_no_lease_of_a_holder_that_lives(jump):
    now = 1_000_000.0
    limiter = SyncLimiter(MemoryStore(clock=lambda: now))
    lease = limiter.acquire(ConcurrencyLimit(KEY, lease=1))
    now += jump
    assert not lease.lost
    assert limiter.try_acquire(ONE) is None
    lease.release()
    with limiter.hold(ONE) as successor:
        assert successor.fencing_token > lease.fencing_token


@pytest.mark.parametrize("timeout", [0, 0.001, 0.0105, 0.015])
async def test_row_04_a_wait_that_times_out_enters_with_no_slot(store, limiter, threads, timeout):
    async with Limiter(store).hold(ONE):
        with pytest.raises(WaitTimeout):
            await limiter.acquire(ONE, timeout=timeout)
        with pytest.raises(WaitTimeout):
            await anyio.to_thread.run_sync(lambda: threads.acquire(ONE, timeout=timeout))
        assert store.inspect("key").in_use == 1


async def test_row_05_late_releases_do_not_add_slots(store, limiter):
    evicted = [await limiter.acquire(TWO), await limiter.acquire(TWO)]
    for lease in evicted:
        await limiter.evict(lease.id)
    current = [await limiter.acquire(TWO), await limiter.acquire(TWO)]
    for lease in [*evicted, *evicted]:
        await lease.release()
    assert store.inspect("key").in_use == 2
    assert await limiter.try_acquire(TWO) is None
    for lease in current:
        await lease.release()


async def test_row_07_work_that_takes_longer_than_a_lease_keeps_its_slot(store, limiter):
    async with limiter.hold(ConcurrencyLimit(KEY, lease=0.01)) as lease:
        await anyio.sleep(0.03)
        assert await limiter.try_acquire(ONE) is None
        assert not lease.lost
    assert list(store.keys()) == []


async def test_row_08_an_evicted_holder_is_not_brought_back_by_a_renewal(store, limiter):
    evicted = await limiter.acquire(ONE)
    await limiter.evict(evicted.id)
    async with limiter.hold(ONE):
        assert evicted.id in store.renew([evicted.id]).gone
        assert store.inspect("key").in_use == 1
        with pytest.raises(LeaseLost):
            evicted.check()
    await evicted.release()


async def test_row_09_capacity_is_full_after_any_number_of_cancelled_waiters(store, limiter):
    async with limiter.hold(ONE), anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(limiter.acquire, ONE)
        await until_waiting(store, "key", 50)
        tasks.cancel_scope.cancel()
    assert list(store.keys()) == []


@pytest.mark.parametrize("spins", range(8))
@pytest.mark.parametrize("make_store", [MemoryStore, lambda: RemoteStore(steps=2, hints_only=True)])
async def test_row_11_a_release_at_any_step_of_an_acquire_wakes_it(make_store, spins):
    limiter = Limiter(make_store())
    lease = await limiter.acquire(ONE)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.run, ONE, checkpoint)
            for _ in range(spins):
                await checkpoint()
            await lease.release()


def test_row_11_a_release_beside_an_acquire_in_another_thread_wakes_it(store, threads):
    for _ in range(200):
        lease = threads.acquire(ONE)
        waiter = Thread(lambda: SyncLimiter(store).acquire(ONE, timeout=20).release())
        lease.release()
        waiter.result()


async def test_row_12_steady_arrivals_do_not_overtake(store, limiter):
    arrived: list[int] = []
    served: list[int] = []

    async def call(number: int) -> None:
        arrived.append(number)
        async with limiter.hold(TWO):
            served.append(number)
            await checkpoint()
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(call, number)
            if number % 5 == 0:
                await checkpoint()
    assert served == arrived


async def test_row_12_a_freed_slot_belongs_to_the_waiter_before_it_runs(store, limiter, threads):
    lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.run, ONE, checkpoint)
        await until_waiting(store, "key", 1)
        await lease.release()
        assert await limiter.try_acquire(ONE) is None
        assert threads.try_acquire(ONE) is None


def test_row_13_a_release_after_the_end_of_the_lease_frees_nobodys_slot(threads):
    late = threads.acquire(ConcurrencyLimit(KEY, max_hold=0.2))
    until_now(lambda: late.lost, "the hold is over")
    successor = threads.acquire(ONE)
    late.release()
    late.release()
    assert threads.inspect("key").in_use == 1
    assert not successor.lost
    successor.release()


async def test_row_14_renewing_beside_releasing_reports_no_loss(store, limiter, caplog):
    over: list[bool] = []

    async def renew() -> None:
        while not over:
            store.renew([holder.id for holder in store.inspect("key").holders])
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(renew)
        for _ in range(1000):
            async with limiter.hold(ConcurrencyLimit(KEY, lease=0.01)) as lease:
                await checkpoint()
            assert not lease.lost
        over.append(True)
    assert caplog.text == ""


def test_row_18_thousands_of_ended_holders_are_passed_in_many_small_steps():
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    limiter = SyncLimiter(store)
    many = ConcurrencyLimit(KEY, max_concurrent=3000, max_hold=1)
    leases = [limiter.acquire(many) for _ in range(3000)]
    now += 2
    leases += [limiter.acquire(many, timeout=20) for _ in range(3000)]
    for lease in leases:
        lease.release()
    assert list(store.keys()) == []


async def test_row_24_a_release_wakes_one_waiter_and_not_the_herd():
    remote = RemoteStore(hints_only=True)
    limiter = Limiter(remote)
    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        for _ in range(100):
            tasks.start_soon(limiter.run, ONE, checkpoint)
        await until(lambda: remote.inner.inspect("key").waiting == 100, "100 wait")
        remote.asked = 0
    assert remote.asked == 100  # each asked once more: when it was its turn


async def test_row_28_a_blocked_event_loop_keeps_its_slot(store, limiter, threads):
    taken: list[object] = []
    async with limiter.hold(ConcurrencyLimit(KEY, lease=0.01)) as lease:
        other = Thread(lambda: taken.append(threads.try_acquire(ONE)))
        time.sleep(0.03)  # noqa: ASYNC251  (blocking the loop is the point)
        assert not lease.lost
    other.result()
    assert taken == [None]


async def test_row_34_the_queue_is_as_long_as_it_may_be(store, limiter):
    limit = ConcurrencyLimit(KEY, max_waiting=10)
    refused: list[QueueFull] = []

    async def eleventh() -> None:
        with pytest.raises(QueueFull) as refusal:
            await limiter.acquire(limit)
        refused.append(refusal.value)

    async with anyio.create_task_group() as tasks, limiter.hold(limit):
        for _ in range(10):
            tasks.start_soon(limiter.run, limit, checkpoint)
        await until_waiting(store, "key", 10)
        tasks.start_soon(eleventh)
        await until(lambda: len(refused) == 1, "the eleventh is refused")
        assert store.inspect("key").waiting == 10


def test_row_35_a_short_lease_does_not_end_a_long_one_beside_it():
    now = 1000.0
    limiter = SyncLimiter(MemoryStore(clock=lambda: now))
    long = limiter.acquire(ConcurrencyLimit(KEY, max_concurrent=2, max_hold=60))
    short = limiter.acquire(ConcurrencyLimit(KEY, max_concurrent=2, max_hold=0.3))
    now += 1
    assert short.lost
    assert not long.lost
    assert [holder.id for holder in limiter.inspect("key").holders] == [long.id]
    long.release()


async def test_row_35_ten_thousand_keys_leave_nothing_behind(store, limiter):
    by_customer = ConcurrencyLimit("customer_id")
    for number in range(10_000):
        async with limiter.hold(by_customer, {"customer_id": number}):
            pass
    assert list(store.keys()) == []


async def test_row_36_two_callers_with_two_numbers_each_keep_to_their_own(store, limiter):
    async with NamedCalls(store) as calls:
        for name in "ab":
            await calls.start(name, TWO)
        await calls.start("one", ONE)
        await calls.finish("a")
        assert calls.became == {"a": "done", "b": "runs", "one": "asks"}
        assert (await limiter.inspect("key")).declared == (1, 2)
        await calls.finish("b")
        await calls.becomes("one", "runs")


def test_nobody_waits_while_a_slot_is_free_because_a_hold_went_on_too_long(store, threads):
    """The waiter came when no end was known: the hold that began after it has one."""
    bounded = ConcurrencyLimit(KEY, max_hold=0.01)
    first = threads.acquire(ONE)
    overlong = Thread(lambda: threads.acquire(bounded))
    until_waiting_now(store, "key", 1)
    waiter = Thread(lambda: threads.acquire(ONE))
    until_waiting_now(store, "key", 2)
    first.release()
    lost = overlong.result()
    waiter.join(2)
    served = not waiter.is_alive()
    lost.release()
    waiter.result().release()
    assert served
