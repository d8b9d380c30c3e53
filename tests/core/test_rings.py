"""Calls that wait for each other are found and reported, and nothing else is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import anyio
import anyio.abc
import pytest
from anyio import wait_all_tasks_blocked

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter, events
from limiter_core._held_leases import SEPARATOR, held_in
from limiter_core._rings import MAX_KEYS, Member, find_ring
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._tools import until, until_now, until_waiting

PATIENCE = 3.0
"""Seconds after which a ring is reported."""
STEP = 0.25


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def sent() -> list[events.Event]:
    return []


@pytest.fixture
def limiter(store: MemoryStore, sent: list[events.Event]) -> Limiter:
    return Limiter(store, label="web-1", observe=sent.append)


def limit(key: str, slots: int = 1, **options) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(key), slots, **options)


async def hold_in_turn(
    limiter: Limiter, limits: Sequence[ConcurrencyLimit], steps: Sequence[anyio.Event] = ()
) -> None:
    """Hold limits, each in the block of the one before; each is asked for when its step begins."""
    if not limits:
        return
    for step in steps[:1]:
        await step.wait()
    async with limiter.hold(limits[0]):
        await hold_in_turn(limiter, limits[1:], steps[1:])


async def reports_after(
    caplog: pytest.LogCaptureFixture,
    clock: FakeClock,
    calls: Sequence[tuple[Limiter, Sequence[ConcurrencyLimit]]],
    seconds: float = PATIENCE,
) -> list[logging.LogRecord]:
    """Return what was logged of rings after so many seconds; the calls are cancelled then."""
    with caplog.at_level(logging.WARNING, "limiter"):
        async with anyio.create_task_group() as tasks:
            # One task alone may wait for all others: two would take each other for blocked.
            steps = [anyio.Event() for _ in max((limits for _, limits in calls), key=len)]
            for limiter, limits in calls:
                tasks.start_soon(hold_in_turn, limiter, limits, steps)
            for step in steps:
                step.set()
                await wait_all_tasks_blocked()
            for _ in range(round(seconds / STEP)):
                clock.advance(STEP)
                await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    return [each for each in caplog.records if "wait for each other" in each.message]


async def test_two_calls_that_hold_what_the_other_wants(limiter, store, clock, caplog, sent):
    a, b = limit("a"), limit("b")
    other = Limiter(store, label="web-2")
    (record,) = await reports_after(caplog, clock, [(limiter, [a, b]), (other, [b, a])])
    assert "web-1 waits for 'b' while it holds 'a'" in record.message
    assert "web-2 waits for 'a' while it holds 'b'" in record.message
    assert record.name == "limiter"
    assert sorted(zip(record.ring, record.ring_keys, strict=True)) == [
        ("web-1", "b"),
        ("web-2", "a"),
    ]


async def test_the_event_is_sent_once(limiter, clock, caplog, sent):
    a, b = limit("a"), limit("b")
    await reports_after(caplog, clock, [(limiter, [a, b]), (limiter, [b, a])], seconds=60)
    (event,) = [each for each in sent if isinstance(each, events.WaitingForEachOther)]
    assert (event.ring, sorted(event.ring_keys)) == (("web-1", "web-1"), ["a", "b"])
    assert event.keys in (("a",), ("b",))


@pytest.mark.parametrize("length", [3, 5])
async def test_a_longer_ring(limiter, clock, caplog, length):
    limits = [limit(f"k{number}") for number in range(length)]
    calls = [(limiter, [limits[n], limits[(n + 1) % length]]) for n in range(length)]
    (record,) = await reports_after(caplog, clock, calls)
    assert sorted(record.ring_keys) == [f"k{number}" for number in range(length)]
    after = dict(zip(record.ring_keys, (*record.ring_keys[1:], record.ring_keys[0]), strict=True))
    assert all(after[f"k{n}"] == f"k{(n + 1) % length}" for n in range(length))


async def test_all_slots_of_a_key_kept_by_calls_in_the_ring(limiter, clock, caplog):
    """Both holders of `a` want `b`; what `b` wants of `a` is kept by both of them."""
    a, b = limit("a", 2), limit("b")
    (record,) = await reports_after(
        caplog, clock, [(limiter, [a, b]), (limiter, [a, b]), (limiter, [b, a])]
    )
    assert record.message.count("waits for") == 3


async def test_one_key_may_be_enough(limiter, clock, caplog):
    """Two slots, each held by a call that wants one more."""
    deep = limit("a", 2)
    assert await reports_after(caplog, clock, [(limiter, [deep, deep]), (limiter, [deep, deep])])


async def test_calls_that_hold_several_keys(limiter, clock, caplog):
    a, b, c = limit("a"), limit("b"), limit("c")
    (record,) = await reports_after(
        caplog, clock, [(limiter, [a, c, b]), (limiter, [b, limit("d"), a])]
    )
    assert "web-1 waits for 'b' while it holds 'c' and 'a'" in record.message


async def test_a_call_behind_a_ring_is_not_in_it(limiter, clock, caplog):
    a, b, c = limit("a"), limit("b"), limit("c")
    (record,) = await reports_after(
        caplog, clock, [(limiter, [a, b]), (limiter, [b, a]), (limiter, [c, a])]
    )
    assert "'c'" not in record.message


async def test_a_ring_among_many_that_wait_there_too(limiter, clock, caplog):
    """More of them, each with a key of its own, than a call looks at."""
    hot, number = limit("hot"), MAX_KEYS + 20
    calls = [(limiter, [hot, limit(f"k{number}")])]
    calls += [(limiter, [limit(f"k{each}"), hot]) for each in range(1, number + 1)]
    (record,) = await reports_after(caplog, clock, calls)
    assert sorted(record.ring_keys) == ["hot", f"k{number}"]


# -- no ring ---------------------------------------------------------------------------------------


async def test_a_holder_that_works_is_in_no_ring(limiter, clock, caplog):
    """One of the two slots is kept by a call that waits for nothing."""
    a, b = limit("a", 2), limit("b")
    async with limiter.hold(a):
        calls = [(limiter, [a, b]), (limiter, [b, a])]
        assert not await reports_after(caplog, clock, calls, 10)


@pytest.mark.parametrize("patience", [{"timeout": 100}, {"max_hold": 100}])
async def test_a_call_that_goes_on_by_itself_is_in_no_ring(limiter, clock, caplog, patience):
    bounded = limit("b", **patience)
    calls = [(limiter, [limit("a"), bounded]), (limiter, [bounded, limit("a")])]
    assert not await reports_after(caplog, clock, calls, 10)


async def test_a_call_that_holds_nothing_carries_nothing_in_the_store(limiter, store, clock):
    async with anyio.create_task_group() as tasks:
        lease = await limiter.acquire(limit("a"))
        tasks.start_soon(hold_in_turn, limiter, [limit("a")])
        async with limiter.hold(limit("b")):
            await wait_all_tasks_blocked()
            clock.advance(2)
            await wait_all_tasks_blocked()
            (waiter,) = store.inspect("a").waiters
            assert waiter.holds == ()
        await lease.release()


async def test_a_call_for_which_none_waits_looks_at_what_it_holds_alone(limiter, store, clock):
    """However many wait beside it, each with a key of its own."""
    async with anyio.create_task_group() as tasks:
        lease = await limiter.acquire(limit("hot"))
        for number in range(20):
            tasks.start_soon(hold_in_turn, limiter, [limit(f"k{number}"), limit("hot")])
        await until_waiting(store, "hot", 20)
        clock.advance(1)
        await until(lambda: all(each.holds for each in store.inspect("hot").waiters), "announced")
        waiter = store.inspect("hot").waiters[7]
        start = Member(waiter.id, "hot", 1, 1, waiter.label, waiter.holds)
        looks = find_ring(start)
        assert next(looks) == waiter.holds[0].keys[0]
        with pytest.raises(StopIteration):
            looks.send(store.inspect(waiter.holds[0].keys[0]))
        await lease.release()


async def test_what_a_waiter_holds_is_known_after_a_while(limiter, store, clock):
    async with anyio.create_task_group() as tasks:
        lease = await limiter.acquire(limit("a"))
        tasks.start_soon(hold_in_turn, limiter, [limit("b"), limit("a")])
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert store.inspect("a").waiters[0].holds == ()
        clock.advance(1)
        await wait_all_tasks_blocked()
        (waiter,), (holder,) = store.inspect("a").waiters, store.inspect("b").holders
        assert (waiter.label, holder.label) == ("web-1", "web-1")
        assert waiter.holds == ((holder.id, ("b",)),)
        await lease.release()


def test_a_label_cannot_pretend_to_hold(store):
    threads = SyncLimiter(store, label=f'web{SEPARATOR}[["id",["a"]]]')
    with threads.hold(limit("a")):
        (holder,) = store.inspect("a").holders
    assert holder.label == 'web?[["id",["a"]]]'


# -- threads ---------------------------------------------------------------------------------------


def test_threads_that_wait_for_each_other(store, clock, caplog):
    threads = SyncLimiter(store, label="worker-1")
    a, b = limit("a"), limit("b")
    both = threading.Barrier(2)

    def work(first: ConcurrencyLimit, second: ConcurrencyLimit) -> None:
        with threads.hold(first):
            both.wait(10)
            with threads.hold(second):
                pass

    def reported() -> bool:
        clock.advance(STEP)
        return any("wait for each other" in each.message for each in caplog.records)

    workers = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a))]
    with caplog.at_level(logging.WARNING, "limiter"):
        for worker in workers:
            worker.start()
        until_now(lambda: store.inspect("a").waiting == 1, "it waits for a")
        until_now(lambda: store.inspect("b").waiting == 1, "it waits for b")
        until_now(reported, "the ring is reported")
    store.evict(store.inspect("a").holders[0].id)
    for worker in workers:
        worker.join(10)


def test_leases_that_cannot_be_read_are_none() -> None:
    """What another program wrote into the store must not stop `inspect`."""
    for text in ("[" * 3900, "{}", "5", "null", '[["id"]]', '[["id", 5]]', "no JSON"):
        assert held_in(f"label{SEPARATOR}{text}") == ()
