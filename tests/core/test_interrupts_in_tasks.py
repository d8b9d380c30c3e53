"""Exceptions that are raised at any line of a call in an event loop, or in a thread by another."""

from __future__ import annotations

import ctypes
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    LimiterError,
    SyncLimiter,
)
from limiter_core.requests import Demand
from limiter_memory import MemoryStore

from ._interrupts import LONG, ONE, TWO, Other, finish
from ._stores import RemoteStore
from ._throw import Thrower, Thrown, sweep_async
from ._tools import PATIENCE, Thread

# -- in an event loop ----------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def behind_a_network(store: MemoryStore) -> Any:
    remote = RemoteStore(steps=1)
    remote.inner = store
    return remote


async def swept_async(trial: Callable[[Thrower, MemoryStore], Awaitable[None]]) -> None:
    async def with_a_store(thrower: Thrower) -> None:
        await trial(thrower, MemoryStore())

    assert await sweep_async(with_a_store) > 10


async def interrupt_async(thrower: Thrower, work: Callable[[], Awaitable[object]]) -> None:
    raised = False
    with thrower.tracing():
        try:
            await work()
        except Thrown:
            raised = True
    assert raised == thrower.has_thrown, "it was swallowed"


@pytest.mark.parametrize("suspends", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
async def test_a_hold_in_a_task(suspends: bool) -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = Limiter(behind_a_network(store) if suspends else store)

        async def work() -> None:
            async with limiter.hold(LONG):
                assert store.inspect("one").in_use == 1

        await interrupt_async(thrower, work)
        finish(store)

    await swept_async(trial)


@pytest.mark.exhaustive
@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("way", ["run", "limited"])
@pytest.mark.parametrize("limit", [ONE, LONG], ids=["one", "long"])
async def test_a_call_in_a_task(suspends: bool, way: str, limit: ConcurrencyLimit) -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = Limiter(behind_a_network(store) if suspends else store)

        async def body() -> None:
            assert store.inspect("one").in_use == 1

        limited = limiter.limited(limit)(body)
        await interrupt_async(
            thrower, limited if way == "limited" else lambda: limiter.run(limit, body)
        )
        finish(store)

    await swept_async(trial)


@pytest.mark.exhaustive
@pytest.mark.parametrize("suspends", [False, True])
async def test_a_lease_in_a_task(suspends: bool) -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = Limiter(behind_a_network(store) if suspends else store)

        async def work() -> None:
            lease = await limiter.acquire([ONE, TWO])
            try:
                assert await limiter.try_acquire(ONE) is None
            finally:
                await lease.release()

        await interrupt_async(thrower, work)
        finish(store)

    await swept_async(trial)


async def test_handing_over_in_a_task() -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        holding = AsyncExitStack()
        await holding.enter_async_context(Limiter(store).hold([ONE, TWO]))
        others = [
            Other(store, "a", Demand("one", 1), Demand("two", 2, 2)),
            Other(store, "b", Demand("one", 1)),
        ]
        await interrupt_async(thrower, holding.aclose)
        finish(store, *others)

    await swept_async(trial)


@pytest.mark.exhaustive
async def test_a_task_that_waits_in_vain() -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = Limiter(store)
        holder = Other(store, "holder", Demand("one", 1))
        waiter = Other(store, "waiter", Demand("one", 1))

        async def work() -> None:
            with suppress(LimiterError):
                await limiter.acquire([ONE, TWO], timeout=0.001)

        await interrupt_async(thrower, work)
        holder.leave()
        finish(store, waiter)

    await swept_async(trial)


# -- thrown in by other threads --------------------------------------------------------------------


def throw_into(thread: Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Thrown)
    )


# Python drops what is thrown in amid the callback of a weak reference, and says so.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function WeakSet:pytest.PytestUnraisableExceptionWarning"
)
def test_threads_into_which_exceptions_are_thrown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is thrown in, and however often: the books are right, and all goes on."""
    # One thrown in amid a log record leaves the lock of logging's handler taken.
    monkeypatch.setattr(logging.getLogger("limiter"), "disabled", True)
    store = MemoryStore()
    limiter = SyncLimiter(store)
    over: list[None] = []
    done: list[None] = []
    ready: set[int] = set()
    """The threads that will catch the next exception."""

    def work(number: int) -> None:
        while not over:
            ready.add(number)
            with suppress(LimiterError, Thrown), limiter.hold(ONE, timeout=0.3):
                done.append(None)

    def guarded(number: int) -> None:
        while not over:
            try:
                work(number)
            except Thrown:
                continue

    threads = [Thread(guarded, number) for number in range(3)]
    give_up_at = time.monotonic() + PATIENCE
    thrown = 0
    while thrown < 500 or len(done) < 500:
        assert time.monotonic() < give_up_at, f"{thrown} thrown, {len(done)} holds"
        if ready:
            number = random.choice(sorted(ready))
            throw_into(threads[number])
            ready.discard(number)
            thrown += 1
        now = store.inspect("one")
        assert now.in_use == sum(holder.cost for holder in now.holders) <= 1
        # Thrown in just before `__exit__`, it leaves a lease that nobody gives back.
        for holder in now.holders:
            if holder.held_for > 0.1:
                store.evict(holder.id)
        time.sleep(random.uniform(0, 0.002))
    over.append(None)
    for thread in threads:
        thread.result()
    for holder in store.inspect("one").holders:
        store.evict(holder.id)
    finish(store)


async def test_a_time_limit_by_a_signal_while_a_task_releases(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler raises what a release raises itself that takes too long."""
    store = MemoryStore()
    limiter: Any = Limiter(store)

    def handler(*_: object) -> None:
        raise TimeoutError("time is up")

    def release(*_: object) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        lease = await limiter.acquire(ONE)
        monkeypatch.setattr(store, "release", release)
        with pytest.raises(TimeoutError, match="time is up"):
            await lease.release()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "could not release" not in caplog.text
    finish(store)
