"""`explain`: what blocks a call, its place in line, and how long it may wait."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

import anyio
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution, Limiter, SyncLimiter
from limiter_core.arguments import ArgumentView
from limiter_core.explanation import held_by
from limiter_core.jobs import Job, SyncJobGate
from limiter_core.requests import HolderSnapshot
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._tools import until_waiting

_numbers = itertools.count()
CANCEL = ConflictResolution.CANCEL


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def limiter(store: MemoryStore) -> Limiter:
    return Limiter(store, label="web-1")


def new_limit(key: str = "k", slots: int = 1, **options) -> ConcurrencyLimit:
    """Return a limit whose name no other test uses."""
    name = f"explained {next(_numbers)}"
    return ConcurrencyLimit(LIMIT_BY.constant(key), slots, name=name, **options)


async def test_nothing_blocks(limiter):
    found = await limiter.explain(new_limit())
    assert (found.blocking, found.place, found.expected_wait) == ((), None, 0.0)
    assert str(found).startswith("Nothing blocks a call on 'k' (explained ")
    assert str(await limiter.explain("k")) == "Nothing blocks a call on 'k' now."


async def test_a_full_key(limiter, store, clock):
    limit = new_limit(slots=2)
    async with await limiter.acquire(limit), await limiter.acquire(limit):
        clock.advance(12)
        found = await limiter.explain(limit)
    (key,) = found.blocking
    assert (key.key, key.name, key.limit, key.in_use) == ("k", limit.name, 2, 2)
    assert [(each.label, each.held_for) for each in key.holders] == [("web-1", 12.0)] * 2
    assert (found.place, found.expected_wait, found.refused) == (1, None, False)
    assert str(found) == (
        f"'k' ({limit.name}) is full: 2 of 2 slots are in use, held by web-1 for 12 s and web-1 "
        "for 12 s. A call would be number 1 in line."
    )


async def test_the_place_and_the_wait(limiter, store, clock):
    """From the mean hold of the name: the rest of the present hold, and one for each in line."""
    limit = new_limit()
    async with limiter.hold(limit):
        clock.advance(10)
    async with anyio.create_task_group() as tasks, await limiter.acquire(limit):
        clock.advance(4)
        for _ in range(2):
            tasks.start_soon(_hold, limiter, limit)
        await until_waiting(store, "k", 2)
        found = await limiter.explain(limit)
    assert found.place == 3
    assert found.expected_wait == pytest.approx(26.0)
    assert str(found).endswith(
        "; 2 calls wait. A call would be number 3 in line, and can expect its slots in about 26 s."
    )


async def _hold(limiter: Limiter, limit: ConcurrencyLimit) -> None:
    async with limiter.hold(limit):
        pass


async def test_all_keys_that_block(limiter):
    first, free, last = (new_limit(key) for key in ("a", "b", "c"))
    async with await limiter.acquire([first, last]):
        found = await limiter.explain([first, free, last])
    assert [each.key for each in found.blocking] == ["a", "c"]
    assert [each.key for each in found.keys] == ["a", "b", "c"]


async def test_a_call_that_would_be_refused(limiter, store, clock):
    limit = new_limit(on_conflict=CANCEL)
    assert not (await limiter.explain(limit)).refused
    async with limiter.hold(limit):
        found = await limiter.explain(limit)
        assert (found.refused, found.place) == (True, None)
        assert str(found).endswith("A call would be refused now.")
        full = await limiter.explain(new_limit(max_waiting=0))
        assert full.refused
        clock.advance(10)
    async with limiter.hold(limit):
        found = await limiter.explain(limit)
        assert str(found).endswith("refused now, a slot can be expected in about 10 s.")


async def test_a_paused_key(limiter):
    limit = new_limit()
    await limiter.pause("k")
    found = await limiter.explain(limit)
    assert found.blocking[0].paused
    assert (found.place, found.expected_wait) == (1, None)
    assert "is paused by an operator, 0 of 1 slots are in use." in str(found)
    await limiter.resume("k")
    await limiter.set_limit("k", 0)
    assert "admits no call: its limit is 0" in str(await limiter.explain("k"))
    await limiter.reset_limit("k")


async def test_a_wide_waiter_blocks_a_narrow_call(limiter, store):
    limit, wide = new_limit(slots=2), new_limit(slots=2, cost=2)
    async with anyio.create_task_group() as tasks, await limiter.acquire(limit):
        tasks.start_soon(_hold, limiter, wide)
        await until_waiting(store, "k", 1)
        found = await limiter.explain(limit)
        urgent = new_limit(slots=2, on_conflict=ConflictResolution.PRIORITY, priority=1)
        assert not (await limiter.explain(urgent)).blocking
    assert (found.place, len(found.blocking)) == (2, 1)
    assert "has 1 of 2 slots in use, held by web-1 for" in str(found)


async def test_the_place_among_fair_groups(limiter, store):
    """Three calls of one tenant wait: the first of another one is second."""
    limit = new_limit(fair_by="tenant")
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        await stack.enter_async_context(await limiter.acquire(limit, {"tenant": "a"}))
        for _ in range(3):
            tasks.start_soon(_hold_as, limiter, limit, "a")
        await until_waiting(store, "k", 3)
        assert (await limiter.explain(limit, {"tenant": "b"})).place == 2
        assert (await limiter.explain(limit, {"tenant": "a"})).place == 4


async def _hold_as(limiter: Limiter, limit: ConcurrencyLimit, tenant: str) -> None:
    async with limiter.hold(limit, {"tenant": tenant}):
        pass


async def test_the_newest_call_is_first_where_it_supersedes(limiter, store):
    limit = new_limit(on_conflict=ConflictResolution.KEEP_LATEST)
    async with anyio.create_task_group() as tasks, await limiter.acquire(limit):
        tasks.start_soon(_hold, limiter, limit)
        await until_waiting(store, "k", 1)
        assert (await limiter.explain(limit)).place == 1


def test_a_thread_may_ask_too(store, clock):
    threads = SyncLimiter(store, label="worker-1")
    limit = new_limit()
    with threads.acquire(limit):
        clock.advance(0.5)
        found = threads.explain(limit)
        assert str(threads.explain("k")) == str(found)
    assert "held by worker-1 for 500 ms" in str(found)


def test_jobs_without_a_worker_are_explained(store, clock):
    limit, threads = new_limit(), SyncLimiter(store)
    gate = SyncJobGate(store, "mail", lambda _: True)
    with threads.acquire(limit):
        gate.admit(Job("job", limit, ArgumentView({}, "work"), b""))
        gate.leave()
        clock.advance(20)
        found = threads.explain(limit)
    assert found.place == 1
    assert "1 job waits on 'k' for a worker of 'mail': none was seen for 20 s." in str(found)
    gate.drop("job")
    gate.close()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, ""),
        (1, "held by h0 for 1.0 s"),
        (2, "held by h0 for 1.0 s and h1 for 1.0 s"),
        (5, "held by h0 for 1.0 s, h1 for 1.0 s, h2 for 1.0 s and 2 more"),
    ],
)
def test_the_holders_in_words(number, text):
    holders = [
        HolderSnapshot(f"id{n}", 1, 1, n, 1.0, None, True, False, f"h{n}") for n in range(number)
    ]
    assert held_by(holders) == text
