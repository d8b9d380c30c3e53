"""Async generators under a limit: each holds its slot until it ends, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    LeaseLost,
    Limiter,
    LimitReached,
)
from limiter_memory import MemoryStore

from ._tools import until, until_waiting

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


def in_use(store: MemoryStore, key: str = "one") -> int:
    return store.inspect(key).in_use


@pytest.fixture
def numbers(limiter: Limiter) -> Any:
    """A limited stream of numbers."""

    @limiter.limited(ONE)
    async def numbers(count: int = 3) -> AsyncIterator[int]:
        for number in range(count):
            await anyio.lowlevel.checkpoint()
            yield number

    return numbers


async def test_a_stream_holds_a_slot_until_it_is_exhausted(
    numbers: Any, store: MemoryStore
) -> None:
    stream = numbers()
    assert in_use(store) == 0  # it has not begun
    items = []
    async for item in stream:
        assert in_use(store) == 1
        items.append(item)
    assert items == [0, 1, 2]
    assert in_use(store) == 0


async def test_it_stays_an_async_generator_function(numbers: Any) -> None:
    assert inspect.isasyncgenfunction(numbers)
    stream = numbers()
    assert inspect.isasyncgen(stream)
    await stream.aclose()


async def test_a_second_stream_waits_for_the_first(numbers: Any, store: MemoryStore) -> None:
    first, items = numbers(), []

    async def read() -> None:
        items.extend([item async for item in numbers()])

    assert await anext(first) == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await until_waiting(store, "one", 1)
        assert items == []
        await first.aclose()
    assert items == [0, 1, 2]


async def test_a_stream_that_is_closed_early(numbers: Any, store: MemoryStore) -> None:
    async with contextlib.aclosing(numbers()) as stream:
        async for _ in stream:
            break
        assert in_use(store) == 1
    assert in_use(store) == 0


# trio warns of each async generator that is collected before its end, limited or not.
LEFT_OPEN = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


@LEFT_OPEN
async def test_a_stream_that_is_left_by_a_break(numbers: Any, store: MemoryStore) -> None:
    """Python has its event loop close it when it is collected."""
    async for _ in numbers():
        break
    gc.collect()
    await until(lambda: in_use(store) == 0, "it is released")


@LEFT_OPEN
async def test_a_stream_in_a_cycle_that_is_collected(numbers: Any, store: MemoryStore) -> None:
    cycle: dict[str, Any] = {"stream": numbers()}
    cycle["cycle"] = cycle
    assert await anext(cycle["stream"]) == 0
    del cycle
    gc.collect()
    await until(lambda: in_use(store) == 0, "it is released")


async def test_a_stream_that_is_closed_in_another_task(numbers: Any, store: MemoryStore) -> None:
    stream = numbers()
    assert await anext(stream) == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)
    assert in_use(store) == 0


async def test_a_stream_that_is_read_by_one_task_after_the_other(
    numbers: Any, store: MemoryStore
) -> None:
    stream, items = numbers(), []

    async def read() -> None:
        items.append(await anext(stream))

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
    assert items == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert in_use(store) == 0


async def test_a_reader_that_is_cancelled_amid_an_item(
    limiter: Limiter, store: MemoryStore
) -> None:
    closed: list[str] = []

    @limiter.limited(ONE)
    async def endless() -> AsyncIterator[int]:
        try:
            yield 0
            await anyio.sleep_forever()
        finally:
            closed.append("closed")

    stream = endless()
    assert await anext(stream) == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anext, stream)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert closed == ["closed"]
    assert in_use(store) == 0


async def test_an_error_in_the_stream_passes_through(limiter: Limiter, store: MemoryStore) -> None:
    @limiter.limited(ONE)
    async def fails() -> AsyncIterator[float]:
        yield 1.0
        yield 1 / 0

    stream = fails()
    assert await anext(stream) == 1
    with pytest.raises(ZeroDivisionError):
        await anext(stream)
    assert in_use(store) == 0


async def test_what_is_sent_and_thrown_reaches_the_function(limiter: Limiter) -> None:
    @limiter.limited(ONE)
    async def echo() -> Any:
        got: Any = "first"
        while True:
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]

    stream = echo()
    assert await anext(stream) == "first"
    assert await stream.asend("second") == "second"
    assert await stream.athrow(KeyError("third")) == "third"
    with pytest.raises(ZeroDivisionError):
        await stream.athrow(ZeroDivisionError())


async def test_a_slot_that_is_lost_between_two_items(
    limiter: Limiter, numbers: Any, store: MemoryStore
) -> None:
    stream = numbers()
    assert await anext(stream) == 0
    assert await limiter.evict(store.inspect("one").holders[0].id)
    with pytest.raises(LeaseLost, match="evicted"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_limit_may_ask_for_a_warning_only(limiter: Limiter, store: MemoryStore) -> None:
    @limiter.limited(ConcurrencyLimit(LIMIT_BY.constant("one"), on_lost="warn"))
    async def numbers() -> AsyncIterator[int]:
        yield 0
        yield 1

    stream = numbers()
    assert await anext(stream) == 0
    assert await limiter.evict(store.inspect("one").holders[0].id)
    assert [item async for item in stream] == [1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_slot_that_is_lost_amid_an_item(limiter: Limiter, store: MemoryStore) -> None:
    """The task that has read all items so far is cancelled. (In trio the next item raises.)"""

    @limiter.limited(ONE)
    async def waits() -> AsyncIterator[int]:
        yield 0
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            with pytest.raises(LeaseLost):
                [item async for item in waits()]

        tasks.start_soon(read)
        await until(lambda: in_use(store) == 1, "it has begun")
        await anyio.wait_all_tasks_blocked()
        assert await limiter.evict(store.inspect("one").holders[0].id)


async def test_the_arguments_make_the_key(limiter: Limiter, store: MemoryStore) -> None:
    @limiter.limited(ConcurrencyLimit("customer", name="streams"))
    async def bills(customer: int, more: int = 0) -> AsyncIterator[int]:
        yield customer + more

    stream = bills(42)
    assert await anext(stream) == 42
    assert in_use(store, "customer=42") == 1
    await stream.aclose()
    with pytest.raises(TypeError):
        await anext(bills(1, 2, 3))
    with pytest.raises(KeyDerivationError):
        await anext(bills([object()]))


async def test_a_stream_that_is_refused(limiter: Limiter, numbers: Any) -> None:
    @limiter.limited(ConcurrencyLimit(LIMIT_BY.constant("one"), on_conflict="cancel"))
    async def refused() -> AsyncIterator[int]:
        yield 0

    async with contextlib.aclosing(numbers()) as stream:
        await anext(stream)
        with pytest.raises(LimitReached):
            await anext(refused())


class Source:
    async def items(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def __call__(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number


@pytest.mark.parametrize("kind", ["method", "callable", "partial"])
async def test_methods_callables_and_partials(limiter: Limiter, kind: str) -> None:
    source = Source()
    functions: dict[str, Any] = {
        "method": source.items,
        "callable": source,
        "partial": functools.partial(source.items, count=2),
    }
    limited: Any = limiter.limited(ONE)(functions[kind])
    stream = limited() if kind == "partial" else limited(2)
    assert [item async for item in stream] == [0, 1]


def test_above_a_context_manager_it_is_refused(limiter: Limiter) -> None:
    @contextlib.asynccontextmanager
    async def around() -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigurationError, match="makes a context manager"):
        limiter.limited(ONE)(around)


def test_streams_that_are_open_when_the_loop_ends() -> None:
    """`asyncio.run` closes them at its end (`shutdown_asyncgens`)."""
    store = MemoryStore()
    limiter = Limiter(store)
    streams: list[Any] = []

    @limiter.limited(ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=5))
    async def numbers() -> AsyncIterator[int]:
        yield 0
        yield 1

    async def main() -> None:
        for _ in range(3):
            streams.append(numbers())
            assert await anext(streams[-1]) == 0
        assert in_use(store) == 3

    asyncio.run(main())
    assert in_use(store) == 0


def test_a_stream_that_cleans_up_at_the_end_of_its_loop(
    limiter: Limiter, store: MemoryStore, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds its slot until the code has ended, and the loop closes it once."""
    held: list[int] = []
    left: list[object] = []

    @limiter.limited(ONE)
    async def cleans_up() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            held.append(in_use(store))

    async def main() -> None:
        left.append(cleans_up())
        assert await anext(cast(AsyncIterator[int], left[-1])) == 1

    for _ in range(10):  # in which order a loop closes them is a matter of chance
        anyio.run(main, backend=anyio_backend_name)
    assert held == [1] * 10
    assert in_use(store) == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
