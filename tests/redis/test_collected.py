"""Slots that are released by code which the garbage collector runs, in the middle of any other."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core._collected import is_collecting
from limiter_core.streams import release_soon
from limiter_redis import RedisStore

from ._tools import until_now, until_true

MANY = ConcurrencyLimit(LIMIT_BY.constant("many"), max_concurrent=100, lease=60)
PATIENCE = 10.0


def stream(limiter: SyncLimiter) -> Iterator[None]:
    with limiter.hold(MANY):
        yield


def careful_stream(limiter: SyncLimiter) -> Iterator[None]:
    lease = limiter.acquire(MANY)
    try:
        yield
    finally:
        lease.release()


def limited_stream(limiter: SyncLimiter) -> Iterator[None]:
    @limiter.limited(MANY)
    def items() -> Iterator[None]:
        yield

    return items()


def collect_amid_a_step(store: RedisStore, cycle: dict[str, Any]) -> None:
    """Collect something while this thread has the lock that each step takes."""
    face: Any = store.sync_face()

    def step() -> None:
        with face._session.tracker._lock:
            cycle["itself"] = cycle.copy()
            cycle["itself"]["itself"] = cycle["itself"]
            cycle.clear()
            gc.collect()

    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it waits for its own lock"


@pytest.mark.parametrize("generator", [stream, careful_stream, limited_stream])
def test_a_generator_that_is_collected_amid_a_step_of_its_store(
    store: RedisStore, generator: Callable[[SyncLimiter], Iterator[None]]
) -> None:
    limiter = SyncLimiter(store)
    cycle: dict[str, Any] = {"stream": generator(limiter)}
    next(cycle["stream"])
    assert limiter.inspect(MANY).in_use == 1
    collect_amid_a_step(store, cycle)
    until_now(lambda: limiter.inspect(MANY).in_use == 0, "the slot is free")
    with limiter.hold(MANY):
        pass


async def test_a_release_without_waiting_amid_a_step_of_its_store(store: RedisStore) -> None:
    """As a framework's own, which is a plain function, may be called by a finalizer."""
    limiter = Limiter(store)
    lease = await limiter.acquire(MANY)

    def releases() -> Iterator[None]:
        try:
            yield
        finally:
            release_soon(lease)

    cycle: dict[str, Any] = {"stream": releases()}
    next(cycle["stream"])
    collect_amid_a_step(store, cycle)

    async def is_free() -> bool:
        return (await limiter.inspect(MANY)).in_use == 0

    await until_true(is_free, "the slot is free")


class Slow:
    """In a cycle that the garbage collector finds: its finalizer takes its time."""

    def __init__(self, collected: threading.Event, go_on: threading.Event) -> None:
        self._collected, self._go_on, self._itself = collected, go_on, self

    def __del__(self) -> None:
        self._collected.set()
        self._go_on.wait(PATIENCE)


def test_while_another_thread_collects_a_release_is_done_when_it_returns(
    store: RedisStore,
) -> None:
    """It is not code that the collector called, so it waits for the store, as always."""
    collected, go_on = threading.Event(), threading.Event()
    limiter = SyncLimiter(store)
    lease = limiter.acquire(MANY)
    Slow(collected, go_on)
    thread = threading.Thread(target=gc.collect)
    thread.start()
    try:
        assert collected.wait(PATIENCE)
        assert not is_collecting()
        lease.release()
        assert limiter.inspect(MANY).in_use == 0
    finally:
        go_on.set()
        thread.join()
