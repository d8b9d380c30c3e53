"""A slot does not depend on who took it: entered in one task or thread, left in another."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, Limiter

from ._guarded import ASYNCIO_ONLY, ONE, SHORT, in_use
from ._tools import Thread, until, until_waiting_now

LONG_PAST = 0.3


"""Seconds, beside those of `SHORT`."""


async def in_a_task(function: Any, *args: Any) -> Any:
    """Call a coroutine function in a task of its own."""
    results: list[Any] = []

    async def call() -> None:
        results.append(await function(*args))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
    return results[0]


@contextlib.asynccontextmanager
async def guarded(limiter: Limiter, limit: ConcurrencyLimit = ONE) -> AsyncIterator[None]:
    """A resource of a user's, of which a hold is a part."""
    async with limiter.hold(limit):
        yield


class Guarded:
    """The same, as a class."""

    def __init__(self, limiter: Limiter) -> None:
        self.hold = limiter.hold(ONE)

    async def __aenter__(self) -> None:
        await self.hold.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.hold.__aexit__(*error)


class GuardedInPlace(Guarded):
    """Its methods are no coroutine functions, they return what the hold's do."""

    def __aenter__(self) -> Any:
        return self.hold.__aenter__()

    def __aexit__(self, *error: Any) -> Any:
        return self.hold.__aexit__(*error)


@pytest.mark.parametrize("limit", [ONE, SHORT])
class TestEnteredHereAndLeftThere:
    """Nobody is cancelled afterwards, and the slot is free at once."""

    async def test_each_in_a_task_of_its_own(self, store, limiter, limit):
        hold = limiter.hold(limit)
        await in_a_task(hold.__aenter__)
        assert in_use(store) == 1 or limit is SHORT
        await in_a_task(hold.__aexit__, None, None, None)
        assert in_use(store) == 0

    async def test_entered_here_and_left_in_another_task(self, store, limiter, limit):
        hold = limiter.hold(limit)
        await hold.__aenter__()
        await in_a_task(hold.__aexit__, None, None, None)
        assert in_use(store) == 0
        await anyio.sleep(LONG_PAST)  # other work, which goes on

    @pytest.mark.parametrize("looks_first", [False, True])
    async def test_a_dispatcher_enters_and_workers_leave(self, store, limiter, limit, looks_first):
        """Perhaps it finds out first whether that is a context manager, as frameworks do."""
        done: list[int] = []

        async def work(number: int, hold: Any) -> None:
            await checkpoint()
            done.append(number)
            await hold.__aexit__(None, None, None)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                hold = limiter.hold(limit)
                assert not looks_first or hasattr(hold, "__aexit__")
                await hold.__aenter__()
                tasks.start_soon(work, number, hold)
        await anyio.sleep(LONG_PAST)
        assert done == [0, 1, 2, 3, 4]
        assert in_use(store) == 0

    async def test_an_exit_stack_that_is_closed_elsewhere(self, store, limiter, limit):
        stack = contextlib.AsyncExitStack()

        async def enter() -> None:
            await stack.enter_async_context(limiter.hold(limit))

        await in_a_task(enter)
        assert in_use(store) == 1 or limit is SHORT
        await stack.aclose()
        assert in_use(store) == 0
        await anyio.sleep(LONG_PAST)

    async def test_a_context_manager_of_the_user_s_that_is_entered_by_hand(
        self, store, limiter, limit
    ):
        """Its `__aenter__` is called so, too; but where that ends, nothing is known of a block."""
        resource = guarded(limiter, limit)

        async def set_up() -> None:
            await resource.__aenter__()

        await set_up()
        assert in_use(store) == 1 or limit is SHORT
        async with anyio.create_task_group():
            await anyio.sleep(LONG_PAST)
            await resource.__aexit__(None, None, None)
        assert in_use(store) == 0

    async def test_a_context_manager_of_the_user_s_that_is_left_in_another_task(
        self, store, limiter, limit
    ):
        resource = guarded(limiter, limit)
        await in_a_task(resource.__aenter__)
        await in_a_task(resource.__aexit__, None, None, None)
        assert in_use(store) == 0

    async def test_out_of_order(self, limiter, limit):
        other = ConcurrencyLimit(LIMIT_BY.constant("other"), max_hold=0.1)
        first, second = limiter.hold(limit), limiter.hold(other)
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        await second.__aexit__(None, None, None)
        await anyio.sleep(LONG_PAST)

    @ASYNCIO_ONLY
    async def test_entered_within_wait_for(self, store, limiter, limit):
        """On 3.11 that is another task."""
        hold = limiter.hold(limit)
        await asyncio.wait_for(hold.__aenter__(), 5)
        assert in_use(store) == 1 or limit is SHORT
        await hold.__aexit__(None, None, None)
        assert in_use(store) == 0
        await asyncio.sleep(LONG_PAST)

    @ASYNCIO_ONLY
    async def test_a_fixture_that_is_set_up_and_torn_down_in_tasks_of_their_own(
        self, store, limiter, limit
    ):
        """As pytest-asyncio does it."""

        async def fixture() -> AsyncIterator[Any]:
            async with limiter.hold(limit) as lease:
                yield lease

        generator = fixture()
        await asyncio.create_task(anext(generator))
        with pytest.raises(StopAsyncIteration):
            await asyncio.create_task(anext(generator))
        assert in_use(store) == 0
        await asyncio.sleep(LONG_PAST)


class TestGenerators:
    async def test_a_consumer_may_put_a_scope_around_each_item(self, store, limiter):
        items = self.items(limiter, ONE)
        seen = []
        for _ in range(2):
            with anyio.fail_after(5):
                seen.append(await anext(items))
        await items.aclose()
        assert seen == [0, 1]
        assert in_use(store) == 0

    async def test_a_consumer_is_not_cancelled_while_the_generator_rests(
        self, store, limiter, caplog
    ):
        items = self.items(limiter, ONE)
        assert await anext(items) == 0
        await limiter.evict(store.inspect("key").holders[0].id)
        await anyio.sleep(0.05)  # other work of the consumer's, with the generator at its yield
        await items.aclose()
        assert "lost the lease" in caplog.text

    async def test_an_abandoned_generator_cancels_nobody(self, store, limiter):
        items = self.items(limiter, SHORT)
        assert await anext(items) == 0
        await anyio.sleep(LONG_PAST)
        await items.aclose()
        assert in_use(store) == 0

    @pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio's own
    async def test_a_generator_that_is_collected_gives_its_slot_back(self, store, limiter):
        async def consumer() -> None:
            async for _ in self.items(limiter, SHORT):
                break

        await consumer()
        gc.collect()
        await until(lambda: in_use(store) == 0, "the generator is closed")
        await anyio.sleep(LONG_PAST)

    @ASYNCIO_ONLY
    async def test_a_generator_that_waits_itself_is_cancelled(self, store, limiter):
        async def stuck() -> AsyncIterator[int]:
            async with limiter.hold(ONE):
                yield 0
                await asyncio.Event().wait()

        async def consume() -> None:
            async for _ in stuck():
                pass

        consumer = asyncio.create_task(consume())
        await until(lambda: in_use(store) == 1, "it holds")
        await limiter.evict(store.inspect("key").holders[0].id)
        with pytest.raises(LeaseLost):
            await consumer

    @pytest.mark.parametrize("resource", [guarded, Guarded, GuardedInPlace])
    @pytest.mark.parametrize("waits", [False, True])
    async def test_a_context_manager_of_the_user_s_is_cancelled(
        self, store, limiter, threads, resource, waits
    ):
        """Entered by a statement, at once or after a while."""

        async def body() -> None:
            async with resource(limiter):
                await limiter.evict(store.inspect("key").holders[0].id)
                await anyio.sleep_forever()

        releasing = None
        if waits:
            first = threads.acquire(ONE)
            releasing = Thread(lambda: (until_waiting_now(store, "key", 1), first.release()))
        with pytest.raises(LeaseLost):
            await body()
        if releasing is not None:
            releasing.result()

    @ASYNCIO_ONLY
    async def test_an_exit_stack_of_the_body_s_own_is_cancelled(self, store, limiter):
        async def body() -> None:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(limiter.hold(ONE))
                await limiter.evict(store.inspect("key").holders[0].id)
                await anyio.sleep_forever()

        with pytest.raises(LeaseLost):
            await body()

    @pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
    async def test_trio_has_no_way_to_cancel_what_a_stack_may_leave_elsewhere(
        self, limiter, caplog
    ):
        async with contextlib.AsyncExitStack() as stack:
            lease = await stack.enter_async_context(limiter.hold(ONE))
            await limiter.evict(lease.id)
            await checkpoint()
        assert "lost the lease" in caplog.text

    async def items(self, limiter: Limiter, limit: ConcurrencyLimit) -> AsyncIterator[int]:
        async with limiter.hold(limit):
            for number in range(3):
                yield number


async def test_what_cannot_be_cancelled_is_explained_once(store, limiter, caplog, monkeypatch):
    monkeypatch.setattr("limiter_core._async_calls._explained", set())
    caplog.set_level(logging.WARNING, "limiter")
    for _ in range(3):
        hold = limiter.hold(ONE)
        lease = await hold.__aenter__()
        await limiter.evict(lease.id)
        await checkpoint()
        await hold.__aexit__(None, None, None)
    assert caplog.text.count("lost the lease") == 3
    assert caplog.text.count("(logged once)") == 1
