"""An exception thrown in at any line of the package: the slot comes back, the books are right."""

from __future__ import annotations

import ctypes
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Limiter,
    LimiterError,
    SyncLimiter,
)
from limiter_core.requests import Answer, Demand, Granted, Loss, Queued, Replaced, Request
from limiter_memory import MemoryStore

from ._stores import RemoteStore
from ._throw import Thrower, Thrown, sweep, sweep_async
from ._tools import PATIENCE, Thread, until_now, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)
TWO = ConcurrencyLimit(LIMIT_BY.constant("two"), max_concurrent=2)
LONG = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, max_hold=60)


class Other:
    """Somebody else in this process, who waits or holds."""

    def __init__(self, store: MemoryStore, name: str, *demands: Demand, **more: Any) -> None:
        self.store = store
        self.told: list[Answer | None] = []
        self.lost: list[Loss] = []
        self.request = Request(name, demands, listener=self, **more)
        self.answer = store.acquire(self.request)

    def look_again(self, answer: Answer | None = None) -> bool:
        self.told.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        pass

    def lease_lost(self, loss: Loss) -> None:
        self.lost.append(loss)

    def is_granted(self) -> bool:
        """Whether it holds, by all that it was told; it asks when it was told to."""
        while isinstance(self.answer, Queued) and self.told:
            said = self.told.pop()
            self.told.clear()
            self.answer = self.store.acquire(self.request) if said is None else said
        return isinstance(self.answer, Granted)

    def leave(self) -> None:
        self.store.release(self.request.id)


def finish(store: MemoryStore, *others: Other) -> None:
    """Have all who wait served one after the other; then nobody is left, and all is free."""
    waiting = [other for other in others if not isinstance(other.answer, Replaced)]
    for _ in range(len(waiting)):
        served = [other for other in waiting if other.is_granted()]
        ended = [other for other in waiting if isinstance(other.answer, Replaced)]
        assert served or ended, "somebody waits though nobody holds"
        for other in served or ended:
            waiting.remove(other)
            other.leave()
        if not waiting:
            break
    assert not waiting
    assert list(store.keys()) == []
    limiter = SyncLimiter(store)
    for limit in (ONE, TWO):
        leases = [limiter.try_acquire(limit) for _ in range(limit.max_concurrent)]  # type: ignore[arg-type]
        assert all(leases), "a slot is missing"
        assert limiter.try_acquire(limit) is None, "there is a slot too many"
        for lease in leases:
            assert lease is not None
            lease.release()
    assert list(store.keys()) == []


def interrupt(thrower: Thrower, work: Callable[[], object]) -> None:
    """Do some work, of which the exception that is thrown into it must come out."""
    raised = False
    with thrower.tracing():
        try:
            work()
        except Thrown:
            raised = True
    assert raised == thrower.has_thrown, "it was swallowed"


def swept(trial: Callable[[Thrower, MemoryStore], None]) -> None:
    def with_a_store(thrower: Thrower) -> None:
        trial(thrower, MemoryStore())

    assert sweep(with_a_store) > 10


def test_a_hold_of_its_own() -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)

        def work() -> None:
            with limiter.hold(ONE):
                assert store.inspect("one").in_use == 1

        interrupt(thrower, work)
        finish(store)

    swept(trial)


def test_lease_by_acquire() -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)

        def work() -> None:
            lease = limiter.acquire(LONG)
            try:
                assert limiter.try_acquire(ONE) is None
            finally:
                lease.release()

        interrupt(thrower, work)
        finish(store)

    swept(trial)


def test_limited_and_run() -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)

        @limiter.limited(ONE)
        def inner() -> None:
            pass

        interrupt(thrower, lambda: limiter.run([TWO, ONE], lambda: None) or inner())
        finish(store)

    swept(trial)


def test_handing_over() -> None:
    """Two wait, one of them for two slots of another key as well."""

    def trial(thrower: Thrower, store: MemoryStore) -> None:
        holding = ExitStack()
        holding.enter_context(SyncLimiter(store).hold([ONE, TWO]))
        others = [
            Other(store, "a", Demand("one", 1), Demand("two", 2, 2)),
            Other(store, "b", Demand("one", 1)),
            Other(store, "c", Demand("two", 2), max_hold=60.0),
        ]
        interrupt(thrower, holding.close)
        finish(store, *others)

    swept(trial)


@pytest.mark.parametrize("on_conflict", list(ConflictResolution))
def test_waiting_in_vain(on_conflict: ConflictResolution) -> None:
    """Somebody holds, another waits; it comes, waits or is refused, and gives up."""

    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)
        limit = ConcurrencyLimit(
            LIMIT_BY.constant("one"), 1, on_conflict=on_conflict, timeout=0.001
        )
        holder = Other(store, "holder", Demand("one", 1))
        waiter = Other(store, "waiter", Demand("one", 1))
        several = Other(store, "several", Demand("two", 2), Demand("one", 1))

        def work() -> None:
            with suppress(LimiterError):
                limiter.acquire([limit, TWO]).release()

        interrupt(thrower, work)
        holder.leave()
        finish(store, waiter, several)

    swept(trial)


def test_waiting_and_being_served() -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        thrower.files = (threading.__file__,)
        limiter = SyncLimiter(store)
        holder = Other(store, "holder", Demand("one", 1))
        over = threading.Event()

        def let_go() -> None:
            while not over.wait(0.0005):
                if store.inspect("one").waiting:
                    break
            holder.leave()

        thread = Thread(let_go)

        def work() -> None:
            with limiter.hold(ONE):
                pass

        interrupt(thrower, work)
        over.set()
        thread.result()
        finish(store)

    swept(trial)


def test_waking_a_thread_that_waits() -> None:
    """It is served, wherever the one who wakes it is interrupted."""

    def trial(thrower: Thrower, store: MemoryStore) -> None:
        thrower.files = (threading.__file__,)
        limiter = SyncLimiter(store)
        lease = limiter.acquire(ONE)
        waiter = Thread(lambda: limiter.acquire(ONE).release())
        until_waiting_now(store, "one", 1)
        interrupt(thrower, lease.release)
        waiter.result()
        finish(store)

    swept(trial)


def test_what_operators_do() -> None:
    """Each of them gives others their turn, or takes it."""

    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)
        holder = Other(store, "holder", Demand("one", 1))
        a, b = (Other(store, name, Demand("one", 1)) for name in "ab")

        def work() -> None:
            limiter.pause("one")
            limiter.set_limit("one", 2)
            limiter.resume("one")
            limiter.reset_limit("one")
            limiter.evict("holder")
            limiter.inspect("one")
            list(limiter.keys())

        interrupt(thrower, work)
        limiter.resume("one")
        limiter.reset_limit("one")
        if "holder" not in [each.id for each in store.inspect("one").holders]:
            assert set(holder.lost) == {Loss.EVICTED}
        holder.leave()
        finish(store, a, b)

    swept(trial)


def test_queued_jobs() -> None:
    """One is offered its slot, does not come, is passed over, and is offered it again."""

    def trial(thrower: Thrower, store: MemoryStore) -> None:
        def job(name: str, **more: Any) -> Request:
            return Request(name, (Demand("one", 1),), payload=b"", claim=0.0, **more)

        notices: list[str] = []
        store.on_notice(lambda notice: notices.append(notice.id))
        holder = Other(store, "holder", Demand("one", 1))
        for name in "ab":
            store.acquire(job(name))

        def work() -> None:
            store.release("holder")
            store.sweep()
            store.renew(["a", "b"])
            store.withdraw("a")

        interrupt(thrower, work)
        holder.leave()
        store.sweep()
        now = store.inspect("one")
        assert "b" in [each.id for each in (*now.holders, *now.waiters)], "a job is lost"
        assert {"a", "b"} & set(notices)
        for name in "ab":
            store.release(name)
        finish(store)

    swept(trial)


def test_thrown_in_before_the_end_of_a_hold_has_begun() -> None:
    """Nobody can guard that: the lease is collected, is renewed no more, and ends."""
    store = MemoryStore()
    limiter = SyncLimiter(store)
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, lease=0.05)
    thrower = Thrower(0, before="Hold.__exit__")

    def work() -> None:
        with limiter.hold(limit):
            pass

    with pytest.warns(ResourceWarning, match="never released"):
        interrupt(thrower, work)
    assert thrower.has_thrown
    until_now(lambda: store.inspect("one").in_use == 0, "the slot comes back")
    finish(store)


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


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_hold_in_a_task(suspends: bool) -> None:
    async def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = Limiter(behind_a_network(store) if suspends else store)

        async def work() -> None:
            async with limiter.hold(LONG):
                assert store.inspect("one").in_use == 1

        await interrupt_async(thrower, work)
        finish(store)

    await swept_async(trial)


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
