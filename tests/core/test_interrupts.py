"""An exception thrown in at any line of the package: the slot comes back, the books are right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    LimiterError,
    SyncLimiter,
)
from limiter_core._collected import has_work
from limiter_core.requests import Demand, Loss, Request
from limiter_memory import MemoryStore

from ._interrupts import LONG, ONE, TWO, Other, finish, interrupt
from ._throw import Thrower, sweep
from ._tools import Thread, until_now, until_waiting_now


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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
def test_limited_and_run() -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        limiter = SyncLimiter(store)

        @limiter.limited(ONE)
        def inner() -> None:
            pass

        interrupt(thrower, lambda: limiter.run([TWO, ONE], lambda: None) or inner())
        finish(store)

    swept(trial)


def read(numbers: Generator[int, None, None]) -> None:
    for _ in numbers:
        pass


def close(numbers: Generator[int, None, None]) -> None:
    next(numbers)
    numbers.close()


def throw(numbers: Generator[int, None, None]) -> None:
    next(numbers)
    with suppress(KeyError):
        numbers.throw(KeyError())


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(read, marks=pytest.mark.exhaustive),
        close,
        pytest.param(throw, marks=pytest.mark.exhaustive),
    ],
)
def test_generators(use: Callable[[Generator[int, None, None]], None]) -> None:
    def trial(thrower: Thrower, store: MemoryStore) -> None:
        @SyncLimiter(store).limited(LONG)
        def numbers() -> Generator[int, None, None]:
            yield 1
            yield 2

        interrupt(thrower, lambda: use(numbers()))
        until_now(lambda: not has_work(), "what is released in the background is")
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


@pytest.mark.parametrize(
    "on_conflict",
    [
        ConflictResolution.QUEUE,
        *(
            pytest.param(each, marks=pytest.mark.exhaustive)
            for each in ConflictResolution
            if each is not ConflictResolution.QUEUE
        ),
    ],
)
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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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
