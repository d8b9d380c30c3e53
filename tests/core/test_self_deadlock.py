"""A call that would wait for itself is told at once; one that would not is left alone."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    Lease,
    Limiter,
    SyncLimiter,
    WaitTimeout,
)

from ._named_calls import NamedCalls
from ._tools import Thread, keys_in_use, until, until_waiting, until_waiting_now

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY)
TWO = ConcurrencyLimit(KEY, max_concurrent=2)
ITSELF = "would wait for itself"


async def test_a_nested_hold(limiter):
    async with limiter.hold(ONE) as lease:
        with pytest.raises(ConfigurationError, match=ITSELF):
            await limiter.acquire(ONE)
        seen = await limiter.inspect("key")
        assert (seen.in_use, seen.waiting) == (1, 0)
        assert not lease.lost
    assert await keys_in_use(limiter) == []


async def test_a_nested_hold_of_several_limits(limiter):
    other = ConcurrencyLimit(LIMIT_BY.constant("other"))
    async with limiter.hold([ONE, other]):
        with pytest.raises(ConfigurationError, match="'other'"):
            await limiter.acquire(other)


async def test_a_call_that_lacks_its_own_slots(limiter):
    async with limiter.hold(TWO):
        with pytest.raises(ConfigurationError, match=ITSELF):
            await limiter.acquire(ConcurrencyLimit(KEY, max_concurrent=2, cost=2))


async def test_recursion_through_limited(limiter):
    @limiter.limited(TWO)
    async def descend(depth: int) -> int:
        return await descend(depth - 1) if depth else 0

    assert await descend(1) == 0
    with pytest.raises(ConfigurationError, match=ITSELF):
        await descend(2)
    assert await keys_in_use(limiter) == []


def test_a_nested_hold_in_a_thread(threads):
    with threads.hold(ONE):
        with pytest.raises(ConfigurationError, match=ITSELF):
            threads.acquire(ONE)
        assert threads.inspect("key").waiting == 0


def test_recursion_through_limited_in_a_thread(threads):
    @threads.limited(TWO)
    def descend(depth: int) -> int:
        return descend(depth - 1) if depth else 0

    assert descend(1) == 0
    with pytest.raises(ConfigurationError, match=ITSELF):
        descend(2)
    assert list(threads.keys()) == []


def test_a_slot_that_was_released_is_no_longer_held(threads):
    threads.acquire(ONE).release()
    outer, inner = threads.acquire(TWO), threads.acquire(TWO)
    outer.release()
    threads.acquire(TWO, timeout=0).release()
    inner.release()


async def test_another_key_may_be_nested(limiter):
    by_customer = ConcurrencyLimit("customer_id")
    one, other = {"customer_id": 1}, {"customer_id": 2}
    async with limiter.hold(by_customer, one), limiter.hold(by_customer, other):
        assert len(await keys_in_use(limiter)) == 2


async def test_a_call_waits_while_somebody_else_holds_a_slot_too(store, limiter):
    async with NamedCalls(store) as calls:
        await calls.start("somebody else", TWO)
        async with limiter.hold(TWO), anyio.create_task_group() as tasks:
            tasks.start_soon(calls.finish, "somebody else")
            async with limiter.hold(TWO):
                pass


async def test_trying_is_no_waiting(limiter, threads):
    async with limiter.hold(ONE):
        assert await limiter.try_acquire(ONE) is None
    with threads.hold(ONE):
        assert threads.try_acquire(ONE) is None


async def test_a_child_task_may_wait_for_its_parent(store, limiter):
    ran: list[str] = []

    async def child() -> None:
        async with limiter.hold(ONE):
            ran.append("child")

    async with anyio.create_task_group() as tasks, limiter.hold(ONE):
        tasks.start_soon(child)
        await until_waiting(store, "key", 1)
    assert ran == ["child"]


async def test_a_paused_key_waits_for_its_operator(store, limiter):
    ran: list[str] = []

    async def operator() -> None:
        await until_waiting(store, "key", 1)
        await limiter.resume("key")

    async with limiter.hold(TWO), anyio.create_task_group() as tasks:
        await limiter.pause("key")
        tasks.start_soon(operator)
        async with limiter.hold(TWO):
            ran.append("second")
    assert ran == ["second"]


async def test_a_producer_may_take_slots_that_its_workers_give_back(limiter):
    done: list[int] = []

    async def worker(number: int, lease: Lease) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)
        await lease.release()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            lease = await limiter.acquire(TWO)
            tasks.start_soon(worker, number, lease)
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_producer_thread_may_take_slots_that_its_workers_give_back(store, threads):
    leases = [threads.acquire(TWO), threads.acquire(TWO)]

    def work() -> None:
        until_waiting_now(store, "key", 1)
        leases[0].release()

    worker = Thread(work)
    try:
        leases.append(threads.acquire(TWO))
    finally:
        for lease in leases:
            lease.release()
    worker.result()


def test_a_thread_waits_for_the_end_of_its_own_max_hold(threads):
    """Nothing stops its body then, and the slot comes back: the inner call is served."""
    short = ConcurrencyLimit(KEY, max_hold=0.1)
    with threads.hold(short) as outer, threads.hold(ONE, timeout=10) as inner:
        assert outer.lost
        assert not inner.lost


async def test_so_does_a_task_whose_body_is_only_warned(limiter):
    short = ConcurrencyLimit(KEY, max_hold=0.1, on_lost="warn")
    async with limiter.hold(short) as outer, limiter.hold(ONE, timeout=10) as inner:
        assert outer.lost
        assert not inner.lost


async def test_a_task_that_is_cancelled_at_its_max_hold_is_told_at_once(limiter):
    async with limiter.hold(ConcurrencyLimit(KEY, max_hold=60)):
        with pytest.raises(ConfigurationError, match=ITSELF):
            await limiter.acquire(ONE)


async def test_a_lost_lease_that_was_not_let_go_yet_holds_nothing(store, limiter):
    warned = ConcurrencyLimit(KEY, on_lost="warn")
    ran: list[str] = []
    async with limiter.hold(warned) as lease, NamedCalls(store) as calls:
        await limiter.evict(lease.id)
        await calls.start("somebody else", ONE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls.finish, "somebody else")
            async with limiter.hold(ONE):
                ran.append("again")
    assert ran == ["again"]


def test_a_thread_that_inherits_the_number_of_an_ended_one_holds_nothing(store):
    limiter = SyncLimiter(store)
    first = Thread(lambda: limiter.acquire(ONE))
    lease = first.result()

    def wait_a_moment() -> str:
        with pytest.raises((WaitTimeout, ConfigurationError)) as refusal:
            limiter.acquire(ONE, timeout=0.001)
        return type(refusal.value).__name__

    refusals = set()
    for _ in range(50):
        thread = Thread(wait_a_moment)
        refusals.add(thread.result())
        if thread.ident == first.ident:
            break
    else:
        pytest.skip("this system does not use the numbers of ended threads again")
    lease.release()
    assert refusals == {"WaitTimeout"}


async def test_a_task_that_is_over_holds_nothing_for_the_next(limiter):
    leases: list[Lease] = []

    async def take() -> None:
        leases.append(await limiter.acquire(ONE))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_times_out, limiter)
    await leases[0].release()


async def _times_out(limiter: Limiter) -> None:
    with pytest.raises(WaitTimeout):
        await limiter.acquire(ONE, timeout=0.001)


async def test_the_error_comes_at_once_and_others_are_served(store, limiter):
    async with NamedCalls(store) as calls:
        async with limiter.hold(ONE):
            await calls.start("waits", ONE)
            with pytest.raises(ConfigurationError, match=ITSELF):
                await limiter.acquire(ONE)
            assert calls.waiting() == ["waits"]
        await until(lambda: calls.became["waits"] == "runs", "the next is served")


async def test_a_key_behind_another_one_is_looked_at_before_anybody_waits(limiter, threads):
    """The call would sit at the first key, and reach its own only when it is too late to say so."""
    first = ConcurrencyLimit(LIMIT_BY.constant("first"))
    lease = threads.acquire(first)
    async with limiter.hold(ONE):
        with pytest.raises(ConfigurationError, match="wait for itself"):
            await limiter.acquire([first, ONE])
    lease.release()


async def test_a_wide_call_that_its_own_slots_keep_out_is_refused(limiter, threads):
    """Whoever else holds a slot: when all others have gone, its own is still in the way."""
    other = threads.acquire(TWO)
    async with limiter.hold(TWO):
        with pytest.raises(ConfigurationError, match="wait for itself"):
            await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("key"), 2, cost=2))
    other.release()


async def test_a_refused_self_wait_disturbs_nobody(limiter):
    """Neither the holder, which is the task itself, nor who waits."""
    latest = ConcurrencyLimit(
        LIMIT_BY.constant("key"), on_conflict=ConflictResolution.CANCEL_RUNNING
    )
    async with limiter.hold(latest) as lease:
        with pytest.raises(ConfigurationError, match="wait for itself"):
            await limiter.acquire(latest)
        assert not lease.lost
