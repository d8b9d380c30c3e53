"""What refused, preempted and superseded calls are told; and who is not disturbed."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Lease,
    LimitReached,
    Preempted,
    QueueFull,
    Superseded,
    WaitTimeout,
)

from ._tools import Thread, until, until_waiting, until_waiting_now

KEY = LIMIT_BY.constant("key")
QUEUE = ConcurrencyLimit(KEY)
CANCEL = ConcurrencyLimit(KEY, on_conflict=ConflictResolution.CANCEL)
CANCEL_RUNNING = ConcurrencyLimit(KEY, on_conflict=ConflictResolution.CANCEL_RUNNING)
KEEP_LATEST = ConcurrencyLimit(KEY, on_conflict=ConflictResolution.KEEP_LATEST)


async def test_the_refused_learn_which_key_is_full_and_how(limiter):
    async with limiter.hold(CANCEL):
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire(CANCEL)
    told = (refusal.value.key, refusal.value.max_concurrent, refusal.value.in_use)
    assert told == ("key", 1, 1)
    assert type(refusal.value) is LimitReached


async def test_the_refused_learn_all_keys_that_block(limiter):
    free, other = (ConcurrencyLimit(LIMIT_BY.constant(key)) for key in ("free", "other"))
    lease = await limiter.acquire([QUEUE, other])
    async with lease:
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire([other, free, CANCEL])
        assert (refusal.value.key, refusal.value.blocked_by) == ("key", ("other", "key"))
        with pytest.raises(WaitTimeout) as late:
            await limiter.acquire([other, free, QUEUE], timeout=0)
        assert late.value.blocked_by == ("other", "key")
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire([free, CANCEL])
        assert refusal.value.blocked_by == ("key",)


async def test_the_preempted_body_is_cancelled_and_the_call_raises(limiter):
    leases: list[Lease] = []
    ended_by: list[BaseException] = []

    async def hold_for_ever() -> None:
        async with limiter.hold(CANCEL_RUNNING) as lease:
            leases.append(lease)
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as cancelled:
                ended_by.append(cancelled)
                assert lease.lost
                raise

    async def body() -> None:
        with pytest.raises(Preempted) as loss:
            await hold_for_ever()
        assert loss.value.keys == ("key",)
        assert loss.value.lease_id == leases[0].id
        assert loss.value.reason == "a newer call took the slot"
        assert loss.value.__cause__ is ended_by[0]
        await anyio.lowlevel.checkpoint()  # and nothing of the cancellation is left behind

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body)
        await until(lambda: limiter._engine.store.inspect("key").in_use == 1, "the body runs")
        async with limiter.hold(CANCEL_RUNNING):
            assert len(ended_by) == 1


async def test_the_slot_passes_on_only_when_the_preempted_let_go(store, limiter):
    let_go = anyio.Event()
    order: list[str] = []

    async def hold_for_ever() -> None:
        async with limiter.hold(CANCEL_RUNNING):
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await let_go.wait()
                order.append("let go")

    async def stubborn() -> None:
        with pytest.raises(Preempted):
            await hold_for_ever()

    async def newcomer() -> None:
        async with limiter.hold(CANCEL_RUNNING):
            order.append("newcomer")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stubborn)
        await until(lambda: store.inspect("key").in_use == 1, "the body runs")
        tasks.start_soon(newcomer)
        await until_waiting(store, "key", 1)
        await wait_all_tasks_blocked()
        assert store.inspect("key").holders[0].preempted
        assert order == []
        let_go.set()
    assert order == ["let go", "newcomer"]


async def test_a_preempted_holder_that_only_warns_is_told_in_the_log(store, limiter, caplog):
    warned = ConcurrencyLimit(KEY, on_lost="warn")
    async with anyio.create_task_group() as tasks:
        async with limiter.hold(warned) as lease:
            tasks.start_soon(limiter.run, CANCEL_RUNNING, anyio.sleep, 0)
            await until(lambda: lease.lost, "the lease is lost")
            with pytest.raises(Preempted):
                lease.check()
            assert lease.expires_in() > 0  # it may still finish: the slot is its own until then
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "a newer call took the slot" in caplog.text


def test_a_preempted_thread_sees_it_and_goes_on_to_its_end(store, threads, caplog):
    with threads.hold(CANCEL_RUNNING) as lease:
        newcomer = Thread(threads.run, CANCEL_RUNNING, lambda: "ran")
        until_waiting_now(store, "key", 1)
        assert lease.lost
        with pytest.raises(Preempted):
            lease.check()
    assert newcomer.result() == "ran"
    assert "a newer call took the slot" in caplog.text


async def test_the_superseded_learn_on_which_key(store, limiter):
    async def superseded() -> None:
        with pytest.raises(Superseded) as told:
            await limiter.acquire(KEEP_LATEST)
        assert told.value.key == "key"

    async with anyio.create_task_group() as tasks, limiter.hold(KEEP_LATEST):
        tasks.start_soon(superseded)
        await until_waiting(store, "key", 1)
        tasks.start_soon(limiter.run, KEEP_LATEST, anyio.sleep, 0)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("limit", [CANCEL_RUNNING, KEEP_LATEST], ids=["CANCEL_RUNNING", "LATEST"])
async def test_trying_disturbs_neither_the_running_nor_the_waiting(store, limiter, threads, limit):
    async with anyio.create_task_group() as tasks, limiter.hold(QUEUE) as lease:
        tasks.start_soon(limiter.run, QUEUE, anyio.sleep, 0)
        await until_waiting(store, "key", 1)
        assert await limiter.try_acquire(limit) is None
        assert threads.try_acquire(limit) is None
        await wait_all_tasks_blocked()
        assert not lease.lost
        assert store.inspect("key").waiting == 1


async def test_cancel_running_on_a_free_key_disturbs_nobody(limiter):
    limit = ConcurrencyLimit(KEY, max_concurrent=2, on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with limiter.hold(limit) as first, limiter.hold(limit):
        await anyio.lowlevel.checkpoint()
        assert not first.lost


async def test_a_queue_of_none_refuses_instead_of_waiting(limiter, threads):
    limit = ConcurrencyLimit(KEY, max_waiting=0)
    async with limiter.hold(limit):
        with pytest.raises(QueueFull):
            await limiter.acquire(limit)
        with pytest.raises(QueueFull):
            threads.acquire(limit)


async def test_a_newcomer_that_supersedes_finds_room_in_a_full_queue(store, limiter):
    queue = ConcurrencyLimit(KEY, max_waiting=1)
    latest = ConcurrencyLimit(KEY, max_waiting=1, on_conflict=ConflictResolution.KEEP_LATEST)
    ends: list[str] = []

    async def waiter() -> None:
        with pytest.raises(Superseded):
            await limiter.acquire(queue)
        ends.append("superseded")

    async def newcomer() -> None:
        async with limiter.hold(latest):
            ends.append("ran")

    async with anyio.create_task_group() as tasks, limiter.hold(queue):
        tasks.start_soon(waiter)
        await until_waiting(store, "key", 1)
        tasks.start_soon(newcomer)
        await until(lambda: ends == ["superseded"], "the waiter is superseded")
    assert ends == ["superseded", "ran"]
