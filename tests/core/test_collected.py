"""Leases that nobody releases: they warn, are renewed no more, and so come back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core._collected import do_later
from limiter_core.events import Released
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._tools import fork, until, until_now

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY, lease=30)


@contextmanager
def never_released() -> Iterator[None]:
    """The block leaves a lease that nobody releases."""
    with pytest.warns(ResourceWarning, match="was never released"):  # noqa: PT031
        yield
        gc.collect()


def until_it_has_an_end(store: MemoryStore) -> None:
    until_now(
        lambda: store.inspect("key").holders[0].expires_in is not None, "the lease has an end"
    )


def forget(limiter: SyncLimiter) -> None:
    limiter.acquire(ONE)


def forget_a_hold(limiter: SyncLimiter) -> None:
    """As if an exception were thrown in between `__enter__` and the block."""
    limiter.hold(ONE).__enter__()


@pytest.mark.parametrize("take", [forget, forget_a_hold])
def test_a_lease_that_is_collected_warns_and_ends_by_itself(take: Callable[..., None]):
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limiter = SyncLimiter(store)
    with never_released():
        take(limiter)
    assert store.inspect("key").in_use == 1, "who forgot it may still be at work"
    until_it_has_an_end(store)
    clock.advance(29)
    assert limiter.try_acquire(ONE) is None
    clock.advance(2)
    limiter.acquire(ONE).release()
    assert list(store.keys()) == []


async def test_so_does_one_of_an_event_loop(anyio_backend_name: str):
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limiter = Limiter(store)
    with never_released():
        await limiter.acquire(ONE)
    until_it_has_an_end(store)
    clock.advance(31)
    await (await limiter.acquire(ONE)).release()


async def test_a_waiter_is_served_then():
    store = MemoryStore()
    limiter = Limiter(store)
    leases = [await limiter.acquire(ConcurrencyLimit(KEY, lease=0.05))]
    served: list[str] = []

    async def wait() -> None:
        async with limiter.hold(ONE):
            served.append("the waiter")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until(lambda: store.inspect("key").waiting == 1, "it waits")
            with never_released():
                leases.clear()
    assert served == ["the waiter"]
    assert list(store.keys()) == []


def test_it_may_be_collected_amid_a_step_of_its_store():
    """Then the lock of the store is taken, by the very thread that collects."""
    store = MemoryStore()
    limiter = SyncLimiter(store)
    cycle: dict[str, Any] = {"lease": limiter.acquire(ONE)}
    cycle["itself"] = cycle
    with never_released(), store._lock:
        del cycle
        gc.collect()
    until_it_has_an_end(store)
    store.evict(store.inspect("key").holders[0].id)


def test_many_at_once():
    store = MemoryStore()
    limiter = SyncLimiter(store)
    many = ConcurrencyLimit(KEY, max_concurrent=500)
    leases = [limiter.acquire(many) for _ in range(500)]
    before = threading.active_count()
    with never_released():
        leases.clear()
    until_now(
        lambda: all(each.expires_in is not None for each in store.inspect("key").holders),
        "all have an end",
    )
    # Some of others may have begun meanwhile, but not one for each.
    assert threading.active_count() < before + len(store.inspect("key").holders) / 10
    for holder in store.inspect("key").holders:
        store.evict(holder.id)


def stream(limiter: SyncLimiter) -> Iterator[None]:
    with limiter.hold(ONE):
        yield


def careful_stream(limiter: SyncLimiter) -> Iterator[None]:
    lease = limiter.acquire(ONE)
    try:
        yield
    finally:
        lease.release()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("generator", [stream, careful_stream])
def test_a_generator_in_a_cycle_gives_its_slot_back_when_it_is_collected(store, threads, generator):
    """The collector tells of the lease before it closes the generator."""
    cycle: dict[str, Any] = {"stream": generator(threads)}
    cycle["itself"] = cycle
    next(cycle["stream"])
    assert store.inspect("key").in_use == 1
    del cycle
    gc.collect()
    assert store.inspect("key").in_use == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_an_async_generator_in_a_cycle_gives_its_slot_back_a_moment_later(store, limiter):
    """The event loop closes it, after it was collected."""

    async def careful_stream() -> AsyncIterator[None]:
        lease = await limiter.acquire(ONE)
        try:
            yield
        finally:
            await lease.release()

    cycle: dict[str, Any] = {"stream": careful_stream()}
    cycle["itself"] = cycle
    await anext(cycle["stream"])
    assert store.inspect("key").in_use == 1
    del cycle
    gc.collect()
    await until(lambda: store.inspect("key").in_use == 0, "the slot is free")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_amid_the_work_of_the_background_does_its_own():
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(60)

    do_later(work)
    assert begun.wait(10)
    child = fork()
    if not child:
        done = threading.Event()
        do_later(done.set)
        os._exit(0 if done.wait(10) else 1)
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("error")
def test_what_was_released_lost_or_never_granted_does_not_warn(store, threads):
    threads.acquire(ONE).release()
    lost = threads.acquire(ONE)
    threads.evict(lost.id)
    del lost
    with threads.hold(ONE):
        assert threads.try_acquire(ONE) is None
        gc.collect()
    with threads.acquire(ONE) as lease:
        assert not lease.lost
    gc.collect()


async def test_a_lease_is_a_context_manager(store, limiter, threads):
    async with await limiter.acquire(ONE) as lease:
        assert not lease.lost
        assert store.inspect("key").in_use == 1
    with pytest.raises(ZeroDivisionError):
        async with await limiter.acquire(ONE):
            raise ZeroDivisionError
    with threads.acquire(ONE) as held:
        assert store.inspect("key").holders[0].id == held.id
    assert store.inspect("key").in_use == 0


def test_the_collector_calls_nothing_of_ours_that_a_signal_could_interrupt():
    """It would swallow what the signal's handler raises."""
    limiter = SyncLimiter()
    cycle: dict[str, Any] = {"lease": limiter.acquire(ONE)}
    cycle["itself"] = cycle
    with never_released():
        del cycle
    gc.collect()
    ours = [
        each
        for each in gc.callbacks
        if str(getattr(each, "__module__", None)).startswith("limiter_")
    ]
    assert ours == []


@pytest.fixture
def unfinished() -> Iterator[list[str]]:
    """What a finalizer left is being done, for a while; notes when it is done."""
    done: list[str] = []
    may_end = threading.Event()
    do_later(lambda: (may_end.wait(20), done.append("done")))
    timer = threading.Timer(0.1, may_end.set)
    timer.start()
    yield done
    timer.join()


def test_no_slot_waits_for_an_observer_that_takes_long(store: MemoryStore):
    may_go_on = threading.Event()
    limiter = SyncLimiter(
        store, observe=lambda event: type(event) is Released and may_go_on.wait(20)
    )

    @limiter.limited(ConcurrencyLimit(KEY, max_concurrent=3))
    def items() -> Iterator[None]:
        yield

    streams = [items() for _ in range(3)]
    assert [next(each) for each in streams] == [None] * 3
    streams.clear()  # no loop goes on with them, so Python finalizes them
    try:
        until_now(lambda: store.inspect("key").in_use == 0, "the slots are free")
    finally:
        may_go_on.set()
    limiter.close()


def test_the_end_of_a_limiter_waits_for_what_is_being_released(unfinished: list[str]):
    SyncLimiter("memory://").close()
    assert unfinished == ["done"]


async def test_so_does_that_of_a_limiter_for_event_loops(unfinished: list[str]):
    await Limiter("memory://").aclose()
    assert unfinished == ["done"]


def test_so_does_the_end_of_a_process():
    code = """if True:
        import atexit, threading
        from limiter_core._collected import do_later
        at_exit = threading.Event()
        atexit.register(at_exit.set)
        do_later(lambda: (at_exit.wait(20), print("done", flush=True)))
    """
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
