"""A cancellation at every await: afterwards all slots are free, and the next call gets one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from types import coroutine
from typing import Any, cast

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution, Limiter, LimiterError
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore
from limiter_redis.transport.async_transport import AsyncTransport

from ._proxy import Proxy
from ._servers import Process, Server
from ._tools import until, until_true

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, lease=60)
OTHER = ConcurrencyLimit(LIMIT_BY.constant("two"), max_concurrent=1, lease=60)

AWAITS = 8
"""More than a hold has, on its way in and out: the sweeps say so when it is not."""

MOMENTS = [
    (nth, turns, times) for nth in range(1, AWAITS) for turns in (0, 1, 2, 4, 8) for times in (1, 2)
]
"""At which await, after how many turns of the event loop, and how often to cancel."""


class Counted:
    """A coroutine that is cancelled when it has suspended for the n-th time, and maybe again."""

    def __init__(self, body: Coroutine[Any, Any, Any], nth: int, turns: int, times: int) -> None:
        self._body = body
        self._at = range(nth, nth + times)
        self._turns = turns
        self.suspended = 0
        self.task: asyncio.Task[Any] | None = None

    @coroutine
    def run(self) -> Any:
        send, argument = self._body.send, None
        while True:
            try:
                awaited = send(argument)
            except StopIteration as end:
                return end.value
            self.suspended += 1
            if self.suspended in self._at:
                self._cancel_after(self._turns)
            try:
                argument = yield awaited
                send = self._body.send
            except BaseException as error:
                argument, send = error, self._body.throw

    def _cancel_after(self, turns: int) -> None:
        assert self.task is not None
        if turns:
            self.task.get_loop().call_soon(self._cancel_after, turns - 1)
        else:
            self.task.get_loop().call_soon(self.task.cancel)


async def cancelled_at(
    body: Callable[[], Coroutine[Any, Any, Any]], nth: int, turns: int, times: int
) -> bool:
    """Run it and cancel it at its n-th await; whether it came that far."""
    counted = Counted(body(), nth, turns, times)

    async def run() -> None:
        await counted.run()

    counted.task = asyncio.create_task(run())
    with suppress(asyncio.CancelledError, LimiterError):
        await counted.task
    return counted.suspended >= nth


@pytest.fixture
async def limiter(server: Server) -> AsyncIterator[Limiter]:
    store = RedisStore(server.url)
    yield Limiter(store)
    await until(lambda: not store.session.tracker.entries, "nobody waits or holds")
    await store.aclose()


async def all_is_free(limiter: Limiter) -> None:
    for limit in (ONE, OTHER):
        async with limiter.hold(limit, timeout=5.0) as lease:
            snapshot = await limiter.inspect(limit)
            assert [each.id for each in snapshot.holders] == [lease.id]
            assert snapshot.waiting == 0
    assert [key async for key in limiter.keys()] == []


async def waiting(limiter: Limiter, count: int) -> bool:
    return (await limiter.inspect(ONE)).waiting >= count


async def test_a_free_slot(limiter: Limiter) -> None:
    """S15; rows 9, 26: on the way in, in the body, on the way out."""

    async def hold() -> None:
        async with limiter.hold([ONE, OTHER]):
            await asyncio.sleep(0)

    far = 0
    for nth, turns, times in MOMENTS:
        if await cancelled_at(hold, nth, turns, times):
            far = nth
        await all_is_free(limiter)
    assert 2 < far < AWAITS - 1


async def test_a_slot_that_is_handed_over(limiter: Limiter) -> None:
    """S15; rows 10, 27: while it waits, when its grant arrives, after that; beside another."""
    recorder = OverlapRecorder()

    async def wait() -> None:
        async with limiter.hold(ONE):
            with recorder.holding("one", limit=1):
                await asyncio.sleep(0)

    far = 0
    for nth, turns, times in MOMENTS:
        holder = await limiter.acquire(ONE)
        first = asyncio.create_task(cancelled_at(wait, nth, turns, times))
        second = asyncio.create_task(wait())
        await until_true(lambda: waiting(limiter, 1), "somebody waits")
        await holder.release()
        if await asyncio.wait_for(first, 5.0):
            far = nth
        await asyncio.wait_for(second, 5.0)
        await all_is_free(limiter)
    assert 3 < far < AWAITS - 1
    recorder.assert_within("one", 1)


async def test_a_slot_that_is_freed_by_another_process(limiter: Limiter, server: Server) -> None:
    """S6, S15; rows 9, 10: the grant comes by message, and has to be taken up first."""
    other = RedisStore(server.url)

    async def wait() -> None:
        async with limiter.hold(ONE, timeout=5.0):
            await asyncio.sleep(0)

    far = 0
    for nth, turns, times in MOMENTS:
        holder = await Limiter(other).acquire(ONE)
        task = asyncio.create_task(cancelled_at(wait, nth, turns, times))

        async def came_or_left(task: asyncio.Task[bool] = task) -> bool:
            return task.done() or await waiting(Limiter(other), 1)

        await until_true(came_or_left, "it waits, or has been cancelled")
        await holder.release()
        if await asyncio.wait_for(task, 10.0):
            far = nth
        await all_is_free(limiter)
    assert 3 < far < AWAITS - 1
    await other.aclose()


async def test_a_thousand_at_once(limiter: Limiter) -> None:
    """S15; row 9: tasks that give up in any state, beside tasks that do not."""
    recorder = OverlapRecorder()
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=3, lease=60)

    async def call(patience: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                async with limiter.hold(limit):
                    with recorder.holding("one", limit=3):
                        await asyncio.sleep(0.001)
            return True
        return False

    calls = [call((number % 40) / 200 if number % 4 else 30.0) for number in range(1000)]
    done = await asyncio.wait_for(asyncio.gather(*calls), 40.0)
    assert all(done[::4])
    recorder.assert_within("one", 3)
    await all_is_free(limiter)


@pytest.mark.parametrize("resolution", list(ConflictResolution), ids=lambda each: each.value)
async def test_timeouts_under_every_resolution(
    resolution: ConflictResolution, limiter: Limiter
) -> None:
    """S15: whoever leaves, in whatever way, leaves nothing."""
    limit = ConcurrencyLimit(
        LIMIT_BY.constant("one"), max_concurrent=2, lease=60, on_conflict=resolution
    )

    async def call(number: int) -> None:
        with suppress(LimiterError, TimeoutError):
            async with asyncio.timeout((number % 7) / 50):
                async with limiter.hold(limit, timeout=(number % 5) / 50):
                    await asyncio.sleep(0.002)

    await asyncio.wait_for(asyncio.gather(*(call(number) for number in range(200))), 20.0)
    await all_is_free(limiter)


async def test_opening_the_connection_is_cancelled(own_server: Process) -> None:
    """Row 26: whoever cancels all tasks of a loop does not strand who asks for something."""
    with Proxy(own_server.port) as proxy:
        store = RedisStore(proxy.url)
        limiter = Limiter(store)
        async with limiter.hold(OTHER):
            (connection,) = cast(
                AsyncTransport, store.session.async_transport()
            )._connections.values()
        for number in range(20):
            proxy.hold_up()
            proxy.hang_up()
            await until(lambda: connection._stream is None, "the connection is lost")
            asking = asyncio.create_task(limiter.acquire(OTHER))
            await until(lambda: connection._opening is not None, "it is being opened")
            await asyncio.sleep(0.002 * (number % 3))
            if connection._opening is not None:
                connection._opening.cancel()
            proxy.let_pass()
            lease = await asyncio.wait_for(asking, 5.0)
            assert lease.keys == (await limiter.key_for(OTHER),)
            await lease.release()
        await store.aclose()
