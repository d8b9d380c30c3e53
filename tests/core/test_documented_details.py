"""Details of the documentation: closing, clocks of tests, what is told of a key."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    LeaseLost,
    Limiter,
    StoreError,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.requests import Granted, Queued, Request
from limiter_core.store import Capabilities
from limiter_core.testing import FakeClock, FullStore, UnlimitedStore
from limiter_memory import MemoryStore

from ._stores import RemoteStore
from ._tools import Thread, until_waiting, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


class LateStore(UnlimitedStore):
    """A store whose leases are over when their caller continues: its process stood still."""

    def acquire(self, request: Request) -> Granted:
        return super().acquire(request)._replace(expires_in=0.0)


async def test_a_lease_that_is_over_before_its_body_begins_is_lost() -> None:
    """S2: no body begins; and the slot is given back."""
    store = LateStore()
    with pytest.raises(LeaseLost):
        async with Limiter(store).hold(ONE):
            pytest.fail("it began")
    with pytest.raises(LeaseLost), SyncLimiter(store).hold(ONE):
        pytest.fail("it began")
    assert store.inspect("one").in_use == 0


class BusyProcess(UnlimitedStore):
    """A store of a process whose threads are held up, as by a greenlet that computes."""

    def __init__(self, seconds: list[float], *, renewed: bool = False) -> None:
        self.clock = FakeClock()
        super().__init__(clock=self.clock)
        self.seconds = seconds
        self.renewed = renewed

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(suspends=True)

    def acquire(self, request: Request) -> Any:
        granted = super().acquire(request)._replace(expires_in=1.0)
        if not self.renewed:  # it is held up before the request is sent
            self.clock.advance(self.seconds.pop(0))
            return granted
        assert request.listener is not None
        assert request.listener.look_again(granted)
        for _ in range(4):
            self.clock.advance(0.5)
            request.listener.lease_renewed(self.clock() + 1.0)
        return Queued("one", 1, 1, 0, None)


async def holds(store: Any) -> None:
    async with Limiter(store).hold(ONE) as lease:
        assert not lease.lost
        assert lease.expires_in() > 0.9
    assert store.inspect("one").in_use == 0


def holds_in_a_thread(store: Any) -> None:
    with SyncLimiter(store).hold(ONE) as lease:
        assert not lease.lost
        assert lease.expires_in() > 0.9
    assert store.inspect("one").in_use == 0


async def test_a_call_that_was_held_up_for_longer_than_its_lease_asks_again() -> None:
    """It may have been sent only then: nobody said that the lease is lost."""
    for hold in (holds, holds_in_a_thread):
        store = BusyProcess([1.5, 1.5, 0.0])
        waiting: Any = hold(store)
        if waiting is not None:
            await waiting
        assert store.seconds == []


async def test_one_that_is_always_held_up_asks_last_when_its_patience_has_ended() -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), timeout=2.0)
    for seconds in ([3.0, 0.0], [1.5, 1.5, 0.0]):
        store = BusyProcess(list(seconds))
        await (await Limiter(store).acquire(limit)).release()
        again = BusyProcess(list(seconds))
        SyncLimiter(again).acquire(limit).release()
        assert store.seconds == again.seconds == []
    for world in (Limiter, SyncLimiter):
        store = BusyProcess([1.5] * 5)
        acquire: Any = world(store).acquire
        with pytest.raises(LeaseLost):
            await acquire(limit)  # in a thread it is raised before it would be waited for
        assert store.seconds == [1.5] * 2
        assert store.inspect("one").in_use == 0


async def test_a_lease_that_is_renewed_before_its_waiter_continues_lives() -> None:
    await holds(BusyProcess([], renewed=True))
    holds_in_a_thread(BusyProcess([], renewed=True))


@pytest.mark.parametrize("is_given", [True, False])
async def test_closing_ends_the_waiting(is_given: bool) -> None:
    """Also of calls of a store that others use: they have nothing to do with it."""
    limiter = Limiter(MemoryStore() if is_given else "memory://")
    store: Any = limiter._engine.store
    lease = await limiter.acquire(ONE)
    errors: list[BaseException] = []

    async def wait() -> None:
        try:
            await limiter.acquire(ONE)
        except StoreError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(wait)
        await until_waiting(store, "one", 2)
        other = SyncLimiter(store)
        thread = Thread(other.acquire, ONE)
        await until_waiting(store, "one", 3)
        await limiter.aclose()
    assert [str(error)[:6] for error in errors] == ["closed"] * 2
    assert store.inspect("one").waiting == 1
    await lease.release()
    (await anyio.to_thread.run_sync(thread.result)).release()


def test_closing_ends_the_waiting_of_threads() -> None:
    store = MemoryStore()
    limiter = SyncLimiter(store)
    lease = limiter.acquire(ONE)
    threads = [Thread(limiter.acquire, ONE) for _ in range(2)]
    until_waiting_now(store, "one", 2)
    limiter.close()
    for thread in threads:
        with pytest.raises(StoreError, match=r"^closed"):
            thread.result()
    assert store.inspect("one").waiting == 0
    lease.release()
    assert list(store.keys()) == []


async def test_a_clock_of_tests_moves_timeouts() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limiter = Limiter(store)
    async with limiter.hold(ONE), anyio.create_task_group() as tasks:
        seen: list[str] = []

        async def wait(timeout: float) -> None:
            with pytest.raises(WaitTimeout):
                await limiter.acquire(ONE, timeout=timeout)
            seen.append(f"{timeout} s")

        tasks.start_soon(wait, 30)
        tasks.start_soon(wait, 60)
        await until_waiting(store, "one", 2)
        clock.advance(29)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        clock.advance(2)
        await until_waiting(store, "one", 1)
        assert seen == ["30 s"]
        clock.advance(30)


def test_a_clock_of_tests_moves_timeouts_of_threads() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limiter = SyncLimiter(store)
    with limiter.hold(ONE):
        thread = Thread(lambda: limiter.acquire(ONE, timeout=3600))
        until_waiting_now(store, "one", 1)
        clock.advance(3601)
        with pytest.raises(WaitTimeout):
            thread.result()


async def test_a_clock_of_tests_moves_leases() -> None:
    clock = FakeClock()
    limiter = Limiter(MemoryStore(clock=clock))
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), max_hold=100)
    with pytest.raises(LeaseLost, match="max_hold"):  # noqa: PT012
        async with limiter.hold(limit) as lease:
            assert lease.expires_in() == 100
            clock.advance(60)
            assert lease.expires_in() == 40
            assert not lease.lost
            clock.advance(40)
            await anyio.sleep(30)
    held = await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one")))
    assert held.expires_in() == math.inf
    await held.release()


async def test_a_full_store_refuses_at_once_what_would_wait() -> None:
    with pytest.raises(WaitTimeout) as caught:
        async with Limiter(FullStore()).hold(ONE):
            pytest.fail("nobody is admitted")
    assert (caught.value.key, caught.value.max_concurrent) == ("one", 1)
    with pytest.raises(WaitTimeout), SyncLimiter(FullStore()).hold([ONE], timeout=3600):
        pytest.fail("nobody is admitted")


async def test_a_call_without_a_lease_is_not_notified_of_a_release(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A call that is cancelled while the store is away."""
    store: Any = RemoteStore()
    limiter = Limiter(store)
    lease = await limiter.acquire(ONE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.acquire, ONE)
        await until_waiting(store.inner, "one", 1)
        store.down = True
        tasks.cancel_scope.cancel()
    assert "could not release" not in caplog.text
    await lease.release()
    assert caplog.text.count("could not release") == 1


def test_a_key_tells_the_highest_number_that_is_declared_by_those_who_use_it() -> None:
    limiter = SyncLimiter()
    by = LIMIT_BY.constant("one")
    two, five = ConcurrencyLimit(by, 2), ConcurrencyLimit(by, 5)
    assert limiter.inspect("one").limit == 0
    assert limiter.inspect(five).limit == 5
    with limiter.hold(two):
        assert limiter.inspect("one").limit == 2
        with limiter.hold(five):
            assert (limiter.inspect("one").limit, limiter.inspect("one").declared) == (5, (2, 5))
    assert limiter.inspect("one").limit == 0
