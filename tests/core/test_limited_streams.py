"""`limiter_core.streams`: what an adapter puts around a stream that it opens itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio.lowlevel
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core import WaitTimeout as Late
from limiter_core.streams import (
    check_async_limits,
    check_sync_limits,
    limited_stream,
    limited_sync_stream,
)
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


async def numbers(store: MemoryStore, ended: list[int]) -> AsyncIterator[int]:
    try:
        for number in range(3):
            await anyio.lowlevel.checkpoint()
            yield number
    finally:
        ended.append(store.inspect("one").in_use)


def plain_numbers(store: MemoryStore, ended: list[int]) -> Iterator[int]:
    try:
        yield from range(3)
    finally:
        ended.append(store.inspect("one").in_use)


async def test_a_stream_is_closed_before_its_slot_is_released(
    limiter: Limiter, store: MemoryStore
) -> None:
    ended: list[int] = []
    inside: Any = numbers(store, ended)
    stream = limited_stream(limiter, ONE, None, inside)
    assert list(store.keys()) == []  # nothing is taken before the first item
    assert await anext(stream) == 0
    assert store.inspect("one").in_use == 1
    await stream.aclose()
    assert ended == [1]
    assert store.inspect("one").in_use == 0


async def test_its_wait_is_bounded(limiter: Limiter, store: MemoryStore) -> None:
    inside: Any = numbers(store, [])
    async with await limiter.acquire(ONE):
        with pytest.raises(Late):
            await anext(limited_stream(limiter, ONE, None, inside, timeout=0))


def test_a_stream_of_a_thread(threads: SyncLimiter, store: MemoryStore) -> None:
    ended: list[int] = []
    inside: Any = plain_numbers(store, ended)
    stream = limited_sync_stream(threads, ONE, None, inside)
    assert next(stream) == 0
    assert store.inspect("one").in_use == 1
    assert list(stream) == [1, 2]
    assert ended == [1]
    assert store.inspect("one").in_use == 0


def test_a_limiter_of_the_other_world_is_refused(limiter: Limiter, threads: SyncLimiter) -> None:
    assert check_async_limits(limiter, ONE, "it") == check_sync_limits(threads, [ONE], "it")
    with pytest.raises(ConfigurationError, match="it needs a Limiter, got"):
        check_async_limits(threads, ONE, "it")
    with pytest.raises(ConfigurationError, match="it needs a SyncLimiter, got"):
        check_sync_limits(limiter, ONE, "it")
