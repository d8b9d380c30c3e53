"""Generators under a limit: each holds its slot until it ends, wherever that is."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    LeaseLost,
    LimitReached,
    SyncLimiter,
    events,
)
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._tools import Thread, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


def in_use(store: MemoryStore) -> int:
    return store.inspect("one").in_use


@pytest.fixture
def numbers(threads: SyncLimiter) -> Any:
    """A limited generator of numbers."""

    @threads.limited(ONE)
    def numbers(count: int = 3) -> Iterator[int]:
        yield from range(count)

    return numbers


def test_a_generator_holds_a_slot_until_it_is_exhausted(numbers: Any, store: MemoryStore) -> None:
    generator = numbers()
    assert inspect.isgenerator(generator)
    assert in_use(store) == 0  # it has not begun
    items = []
    for item in generator:
        assert in_use(store) == 1
        items.append(item)
    assert items == [0, 1, 2]
    assert in_use(store) == 0


def test_wrong_arguments_are_refused_by_the_call(numbers: Any) -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        numbers(1, 2)


def test_a_generator_that_is_closed_early(numbers: Any, store: MemoryStore) -> None:
    generator = numbers()
    assert next(generator) == 0
    generator.close()
    assert in_use(store) == 0


def test_a_generator_that_is_collected(numbers: Any, store: MemoryStore) -> None:
    generator = numbers()
    assert next(generator) == 0
    del generator
    until_now(lambda: in_use(store) == 0, "it is released")


def test_a_generator_in_a_cycle_that_is_collected(numbers: Any, store: MemoryStore) -> None:
    cycle: dict[str, Any] = {"generator": numbers()}
    cycle["cycle"] = cycle
    assert next(cycle["generator"]) == 0
    del cycle
    gc.collect()
    until_now(lambda: in_use(store) == 0, "it is released")


def test_one_that_is_collected_amid_a_step_of_the_store(numbers: Any, store: MemoryStore) -> None:
    """A release at that place would take a lock that this thread has already."""
    generator = numbers()
    assert next(generator) == 0
    with store._lock:
        del generator
        gc.collect()
    until_now(lambda: in_use(store) == 0, "it is released")


def test_a_generator_that_is_closed_in_another_thread(numbers: Any, store: MemoryStore) -> None:
    generator = numbers()
    assert next(generator) == 0
    Thread(generator.close).result()
    assert in_use(store) == 0


def test_what_is_sent_thrown_and_returned(threads: SyncLimiter, store: MemoryStore) -> None:
    @threads.limited(ONE)
    def echo() -> Generator[Any, Any, str]:
        got: Any = "first"
        while got != "last":
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]
        return "returned"

    generator = echo()
    assert next(generator) == "first"
    assert generator.send("second") == "second"
    assert generator.throw(KeyError("third")) == "third"
    with pytest.raises(StopIteration) as stopped:
        generator.send("last")
    assert stopped.value.value == "returned"
    assert in_use(store) == 0


def test_a_slot_that_is_lost_between_two_items(
    threads: SyncLimiter, numbers: Any, store: MemoryStore
) -> None:
    generator = numbers()
    assert next(generator) == 0
    assert threads.evict(store.inspect("one").holders[0].id)
    with pytest.raises(LeaseLost, match="evicted"):
        next(generator)


def test_a_generator_that_is_refused(threads: SyncLimiter, numbers: Any) -> None:
    @threads.limited(ConcurrencyLimit(LIMIT_BY.constant("one"), on_conflict="cancel"))
    def refused() -> Iterator[int]:
        yield 0

    generator = numbers()
    next(generator)
    with pytest.raises(LimitReached):
        next(refused())
    generator.close()


def test_methods_can_be_limited(threads: SyncLimiter) -> None:
    class Source:
        @threads.limited(ONE)
        def items(self, count: int) -> Iterator[int]:
            yield from range(count)

    assert list(Source().items(2)) == [0, 1]


def test_an_async_generator_function_is_refused(threads: SyncLimiter) -> None:
    async def stream() -> Any:
        yield 1

    with pytest.raises(ConfigurationError, match="there is Limiter"):
        threads.limited(ONE)(stream)


def test_a_collected_generator_was_released(store: MemoryStore) -> None:
    seen = EventRecorder()
    limiter = SyncLimiter(store, observe=seen)

    @limiter.limited(ONE)
    def numbers() -> Iterator[int]:
        yield 0
        yield 1

    generator = numbers()
    next(generator)
    del generator
    until_now(lambda: bool(seen.all(events.Released)), "the release")
    seen.check_invariants(1)
