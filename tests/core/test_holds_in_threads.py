"""Holds that are entered and left in threads, and in coroutines without a task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from limiter_core import LeaseLost, Limiter
from limiter_core.testing import AwaitedStore

from ._guarded import ASYNCIO_ONLY, ONE, SHORT, in_use
from ._tools import PATIENCE, Thread, until_waiting_now


class TestThreads:
    def test_a_hold_that_another_thread_left_is_no_longer_this_one_s(self, store, threads):
        """As FastAPI does with sync dependencies: each step in some thread of a pool."""
        first, second = threads.hold(ONE), threads.hold(ONE, timeout=20)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(first.__enter__).result()
            waits = pool.submit(second.__enter__)  # the same thread, for another request
            until_waiting_now(store, "key", 1)
            first.__exit__(None, None, None)
            waits.result()
            pool.submit(second.__exit__, None, None, None).result()
        assert in_use(store) == 0

    def test_generators_that_a_pool_advances(self, store, threads):
        def dependency() -> Iterator[None]:
            with threads.hold(ONE, timeout=20):
                yield

        first, second = dependency(), dependency()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(next, first).result()
            waits = pool.submit(next, second)
            until_waiting_now(store, "key", 1)
            assert next(first, "left") == "left"
            waits.result()
            assert pool.submit(next, second, "left").result() == "left"
        assert in_use(store) == 0

    def test_in_a_copy_of_the_context_too(self, store, threads):
        """Whether a context is copied says nothing of who leaves the hold."""
        first, second = threads.hold(ONE), threads.hold(ONE, timeout=20)
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            pool.submit(context.run, first.__enter__).result()
            waits = pool.submit(context.run, second.__enter__)
            until_waiting_now(store, "key", 1)
            first.__exit__(None, None, None)
            waits.result()
            second.__exit__(None, None, None)

    @pytest.mark.parametrize("looks_first", [False, True])
    def test_a_dispatcher_enters_and_its_workers_leave(self, store, threads, looks_first):
        """Perhaps it finds out first whether that is a context manager, as frameworks do."""
        entered: list[Any] = []

        def leave(hold: Any, after: int) -> None:
            if after < 3:
                until_waiting_now(store, "key", 1)
            hold.__exit__(None, None, None)

        workers = []
        for number in range(4):
            hold = threads.hold(ONE, timeout=20)
            assert not looks_first or hasattr(hold, "__exit__")
            hold.__enter__()
            entered.append(hold)
            workers.append(Thread(leave, hold, number))
        for worker in workers:
            worker.result()
        assert in_use(store) == 0

    async def test_requests_in_the_threads_of_a_pool(self, store, threads):
        """Many at once, each with a dependency that is entered and left in some thread."""

        @contextlib.contextmanager
        def dependency() -> Iterator[None]:
            with threads.hold(ONE, timeout=20):
                yield

        served: list[int] = []
        few = anyio.CapacityLimiter(9)

        async def request(number: int) -> None:
            manager = dependency()
            await anyio.to_thread.run_sync(manager.__enter__, limiter=few)
            served.append(number)
            await anyio.to_thread.run_sync(manager.__exit__, None, None, None)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(request, number)
        assert sorted(served) == list(range(8))
        assert in_use(store) == 0


class TestNoTask:
    """An event loop runs, and no task of its own."""

    @ASYNCIO_ONLY
    @pytest.mark.parametrize("awaited", [False, True])
    async def test_a_coroutine_that_is_driven_by_hand(self, store, awaited):
        limiter = Limiter(_Faces(store) if awaited else store)
        done = asyncio.get_running_loop().create_future()

        async def use() -> str:
            async with limiter.hold(SHORT):
                return "served"

        def drive() -> None:
            try:
                use().send(None)
            except StopIteration as end:
                done.set_result(end.value)
            except BaseException as error:
                done.set_exception(error)

        asyncio.get_running_loop().call_soon(drive)
        assert await done == "served"
        assert in_use(store) == 0

    @ASYNCIO_ONLY
    async def test_trio_as_a_guest_of_asyncio(self, store, limiter):
        served: list[int] = []

        async def one(number: int) -> None:
            async with limiter.hold(ONE, timeout=20):
                await trio.sleep(0.001)
                served.append(number)

        async def lose() -> None:
            async with limiter.hold(ONE, timeout=20) as lease:
                await limiter.evict(lease.id)
                await trio.sleep_forever()

        async def guest() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(one, number)
            with pytest.raises(LeaseLost):
                await lose()

        loop = asyncio.get_running_loop()
        over = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
        )
        (await over).unwrap()
        assert sorted(served) == [0, 1, 2]
        assert in_use(store) == 0

    def test_no_event_loop_at_all(self, limiter):
        with pytest.raises(Exception, match="use SyncLimiter"):
            limiter.hold(ONE).__aenter__().send(None)


class _Faces:
    """A store whose async face is awaited, though it never suspends."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.capabilities = store.capabilities

    def sync_face(self) -> Any:
        return self._store

    def async_face(self) -> Any:
        return AwaitedStore(self._store)


class TestASyncLimiterInACoroutine:
    @ASYNCIO_ONLY
    async def test_a_wait_is_told_before_the_loop_stands_still(self, store, threads, caplog):
        lease = threads.acquire(ONE)
        helper = threading.Timer(0.05, lease.release)
        helper.start()
        threads.acquire(ONE, timeout=20).release()
        helper.join(PATIENCE)
        assert not helper.is_alive()
        assert "use Limiter there" in caplog.text
        assert "asyncio" in caplog.text

    async def test_what_need_not_wait_is_not_told(self, threads, caplog):
        with threads.hold(ONE):
            assert threads.try_acquire(ONE) is None
        assert caplog.text == ""

    @ASYNCIO_ONLY
    async def test_two_tasks_that_would_stop_each_other_are_told(self, threads):
        """The holder is a task of the loop that would stand still."""
        told: list[str] = []

        async def use() -> None:
            try:
                with threads.hold(ONE):
                    await asyncio.sleep(0.01)
            except ValueError as error:
                told.append(str(error))

        await asyncio.gather(use(), use())
        assert len(told) == 1
        assert "wait for itself" in told[0]
