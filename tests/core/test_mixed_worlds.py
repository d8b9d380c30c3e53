"""asyncio, trio and threads over one store: each wakes the other, in any thread."""

from __future__ import annotations

import asyncio
import time

import anyio
import anyio.lowlevel
import pytest
import trio

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution, Limiter, SyncLimiter

from ._named_calls import NamedCalls
from ._tools import OverlapRecorder, Thread, until_waiting, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))
RUNS = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}
LOOPS = pytest.mark.parametrize("loop", RUNS)


async def test_a_task_that_waits_is_woken_by_the_release_of_a_thread(store, limiter, threads):
    lease = await anyio.to_thread.run_sync(threads.acquire, ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.run, ONE, anyio.sleep, 0)
        await until_waiting(store, "key", 1)
        await anyio.to_thread.run_sync(lease.release)


async def test_a_thread_that_waits_is_woken_by_the_release_of_a_task(store, limiter, threads):
    async with limiter.hold(ONE):
        thread = Thread(lambda: threads.run(ONE, lambda: "ran"))
        await until_waiting(store, "key", 1)
    assert await anyio.to_thread.run_sync(thread.result) == "ran"


async def test_tasks_and_threads_stand_in_one_queue(store):
    worlds = ["threads", "tasks", "threads", "threads", "tasks"]
    async with NamedCalls(store) as calls:
        await calls.start("first", ONE)
        for number, world in enumerate(worlds):
            await calls.start(f"{world} {number}", ONE, world=world)
        order = calls.waiting()
        await calls.finish("first", *order)
    assert calls.served == ["first", *order]
    assert order == [f"{world} {number}" for number, world in enumerate(worlds)]


async def test_a_newcomer_in_a_thread_preempts_a_task(store):
    limit = ConcurrencyLimit(
        LIMIT_BY.constant("key"), on_conflict=ConflictResolution.CANCEL_RUNNING
    )
    async with NamedCalls(store) as calls:
        await calls.start("task", limit)
        await calls.start("thread", limit, world="threads")
        await calls.becomes("task", "Preempted")
        await calls.becomes("thread", "runs")
        await calls.start("task again", limit)
        await calls.becomes("thread", "Preempted")
        await calls.becomes("task again", "runs")


@LOOPS
def test_a_waiter_in_a_loop_is_woken_by_the_main_thread(store, threads, loop):
    lease = threads.acquire(ONE)
    limiter = Limiter(store)

    async def main() -> int:
        async with limiter.hold(ONE) as lease:
            return lease.fencing_token

    waiter = Thread(RUNS[loop], main)
    until_waiting_now(store, "key", 1)
    lease.release()
    assert waiter.result() > lease.fencing_token


@pytest.mark.parametrize("pair", [("asyncio", "asyncio"), ("asyncio", "trio"), ("trio", "trio")])
def test_two_event_loops_in_two_threads_take_turns(store, pair):
    recorder = OverlapRecorder()
    limiter = Limiter(store)

    async def main() -> None:
        async def call() -> None:
            for _ in range(10):
                async with limiter.hold(ONE):
                    with recorder.inside("key"):
                        await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)

    for thread in [Thread(RUNS[loop], main) for loop in pair]:
        thread.result()
    assert recorder.entered == 100
    assert recorder.highest == {"key": 1}


@LOOPS
def test_a_lease_of_one_loop_may_be_evicted_from_another(store, loop):
    holding = Limiter(store)
    reasons: list[str] = []

    async def hold() -> None:
        try:
            async with holding.hold(ONE):
                await anyio.sleep_forever()
        except Exception as error:
            reasons.append(error.reason)

    holder = Thread(RUNS[loop], hold)

    async def evict() -> None:
        while not store.inspect("key").holders:  # noqa: ASYNC110  (another loop's doing)
            await anyio.sleep(0.001)
        assert await Limiter(store).evict(store.inspect("key").holders[0].id)

    anyio.run(evict)
    holder.result()
    assert reasons == ["it was evicted"]


@LOOPS
def test_waiters_of_a_loop_that_ends_are_withdrawn(store, threads, loop):
    limiter = Limiter(store)

    async def main() -> None:
        with anyio.move_on_after(PAUSE):
            await limiter.acquire(ONE)

    with threads.hold(ONE):
        Thread(RUNS[loop], main).result()
        assert store.inspect("key").waiting == 0


PAUSE = 0.005


def test_a_thread_that_times_out_hands_the_slot_on(store):
    outcomes: list[str] = []
    for microseconds in range(0, 3000, 100):
        lease = SyncLimiter(store).acquire(ONE)

        def call(timeout: float) -> str:
            try:
                SyncLimiter(store).acquire(ONE, timeout=timeout).release()
            except TimeoutError:
                return "timed out"
            return "acquired"

        thread = Thread(call, 0.0005 + microseconds / 1_000_000)
        time.sleep(0.002)
        lease.release()
        outcomes.append(thread.result())
        assert list(store.keys()) == []
    assert set(outcomes) <= {"timed out", "acquired"}
    assert "timed out" in outcomes
