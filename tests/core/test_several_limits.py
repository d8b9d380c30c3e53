"""Several limits in one hold: all are taken, or none; each key keeps its own order."""

from __future__ import annotations

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    LimitReached,
)

from ._named_calls import NamedCalls
from ._tools import Thread, keys_in_use, until_waiting_now

A = ConcurrencyLimit(LIMIT_BY.constant("a"))
B = ConcurrencyLimit(LIMIT_BY.constant("b"))
C = ConcurrencyLimit(LIMIT_BY.constant("c"))
WORLDS = pytest.mark.parametrize("world", ["tasks", "threads"])


def when_full(name: str, resolution: str, **options) -> ConcurrencyLimit:
    by = LIMIT_BY.constant(name)
    return ConcurrencyLimit(by, on_conflict=ConflictResolution[resolution], **options)


async def test_all_are_taken_and_named_in_the_order_given(limiter, threads):
    async with limiter.hold([B, A, C]) as lease:
        assert lease.keys == ("b", "a", "c")
        assert await keys_in_use(limiter) == ["a", "b", "c"]
        assert set(lease.fencing_tokens) == {"a", "b", "c"}
        assert set(lease.fencing_tokens.values()) == {lease.fencing_token}
    with threads.hold((A, B)) as lease:
        assert lease.keys == ("a", "b")


@WORLDS
async def test_a_call_that_waits_for_one_key_holds_nothing_of_the_others(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds b", B)
        await calls.start("wants both", [A, B])
        assert calls.became["wants both"] == "asks"
        await calls.start("wants a", A)
        assert calls.became["wants a"] == "runs"
        await calls.finish("holds b")
        assert calls.became["wants both"] == "asks"
        await calls.finish("wants a")
        await calls.becomes("wants both", "runs")


@WORLDS
async def test_opposite_orders_do_not_deadlock(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds", [A, B])
        await calls.start("ab", [A, B])
        await calls.start("ba", [B, A])
        await calls.finish("holds", "ab", "ba")
    assert calls.served == ["holds", "ab", "ba"]


@WORLDS
async def test_a_call_keeps_its_arrival_order_when_it_moves_to_another_queue(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds a", A)
        await calls.start("holds b", B)
        await calls.start("first, wants both", [A, B])
        await calls.start("second, wants b", B)
        await calls.finish("holds a")
        assert calls.waiting() == ["first, wants both", "second, wants b"]
        await calls.finish("holds b")
        await calls.becomes("first, wants both", "runs")
        assert calls.became["second, wants b"] == "asks"


@WORLDS
async def test_one_that_says_cancel_and_is_full_refuses_the_call(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds a", A)
        await calls.start("holds b", B)
        await calls.start("wants both", [A, when_full("b", "CANCEL")])
        assert calls.became["wants both"] == "LimitReached"


@WORLDS
async def test_one_that_says_cancel_refuses_the_call_at_a_later_hand_off_too(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds a", A)
        await calls.start("wants both", [A, when_full("b", "CANCEL")])
        assert calls.became["wants both"] == "asks"
        await calls.start("holds b", B)
        await calls.finish("holds a")
        await calls.becomes("wants both", "LimitReached")


async def test_one_that_says_cancel_and_is_free_lets_the_call_wait_for_another(store):
    async with NamedCalls(store) as calls:
        await calls.start("holds a", A)
        await calls.start("wants both", [A, when_full("b", "CANCEL")])
        await calls.finish("holds a")
        await calls.becomes("wants both", "runs")


async def test_the_refusal_names_the_key_that_refused(limiter):
    async with limiter.hold(B):
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire([A, when_full("b", "CANCEL")])
        assert refusal.value.key == "b"
        assert await keys_in_use(limiter) == ["b"]


async def test_each_key_orders_its_queue_by_its_own_limit(store):
    def urgent(priority: int) -> list[ConcurrencyLimit]:
        return [A, when_full("b", "PRIORITY", priority=priority)]

    async with NamedCalls(store) as calls:
        await calls.start("holds b", when_full("b", "PRIORITY"))
        await calls.start("low", urgent(1))
        await calls.start("high", urgent(9))
        assert calls.waiting() == ["high", "low"]
    async with NamedCalls(store) as calls:
        await calls.start("holds a", A)
        await calls.start("low", urgent(1))
        await calls.start("high", urgent(9))
        assert calls.waiting() == ["low", "high"]


async def test_keep_latest_on_one_key_supersedes_those_that_wait_for_it(store):
    latest = [A, when_full("b", "KEEP_LATEST")]
    async with NamedCalls(store) as calls:
        await calls.start("holds b", B)
        await calls.start("older", latest)
        await calls.start("newer", latest)
        await calls.becomes("older", "Superseded")
        assert calls.waiting() == ["newer"]


async def test_cancel_running_preempts_on_its_own_key_only(store):
    async with NamedCalls(store) as calls:
        await calls.start("holds a", A)
        await calls.start("holds b", B)
        await calls.start("newcomer", [A, when_full("b", "CANCEL_RUNNING")])
        await calls.finish("holds a")
        await calls.becomes("holds b", "Preempted")
        await calls.becomes("newcomer", "runs")
        assert calls.became["holds a"] == "done"


async def test_costs_are_taken_per_key(store, limiter):
    limits = [
        ConcurrencyLimit(LIMIT_BY.constant("a"), max_concurrent=3, cost=2),
        ConcurrencyLimit(LIMIT_BY.constant("b"), max_concurrent=5, cost=4),
    ]
    async with limiter.hold(limits):
        assert (await limiter.inspect("a")).in_use == 2
        assert (await limiter.inspect("b")).in_use == 4


@WORLDS
async def test_an_eviction_takes_all_of_them_back(store, limiter, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("holds", [A, B])
        await calls.start("wants a", A)
        await calls.start("wants b", B)
        await limiter.evict((await limiter.inspect("a")).holders[0].id)
        for name in ("wants a", "wants b"):
            await calls.becomes(name, "runs")
        await calls.becomes("holds", "LeaseLost")


@pytest.mark.parametrize(
    "limits",
    [
        [A, A],
        [A, ConcurrencyLimit(LIMIT_BY.constant("a"), max_concurrent=5)],
        [ConcurrencyLimit("x"), ConcurrencyLimit("y"), ConcurrencyLimit("x", scope=None)],
    ],
)
async def test_limits_taken_together_need_a_key_each(limiter, threads, limits):
    arguments = {"x": 1, "y": 2}
    with pytest.raises(ConfigurationError, match="need a key each"):
        await limiter.acquire(limits, arguments)
    with pytest.raises(ConfigurationError, match="need a key each"):
        threads.acquire(limits, arguments)
    assert await keys_in_use(limiter) == []


async def test_a_scope_tells_the_same_strategies_apart(limiter):
    scoped = ConcurrencyLimit(LIMIT_BY.constant("a"), scope="other")
    async with limiter.hold([A, scoped]) as lease:
        assert lease.keys == ("a", "other/a")


async def test_trying_several_takes_all_or_none(limiter, threads):
    async with limiter.hold(B):
        assert await limiter.try_acquire([A, B]) is None
        assert threads.try_acquire([A, B]) is None
        assert await keys_in_use(limiter) == ["b"]
    lease = threads.try_acquire([A, B])
    assert lease is not None
    lease.release()


async def test_limited_takes_several(limiter):
    @limiter.limited([ConcurrencyLimit("customer_id"), A])
    async def bill(customer_id: int) -> list[str]:
        return await keys_in_use(limiter)

    assert await bill(42) == ["a", "customer_id=42"]


def test_a_call_that_moves_to_a_queue_whose_holder_has_an_end_is_served_at_that_end(store, threads):
    """It began to wait on another key, and knew of no end there."""
    bounded = ConcurrencyLimit(LIMIT_BY.constant("b"), max_hold=0.01)
    holds_a = threads.acquire(A)
    moves = Thread(lambda: threads.acquire([A, B]))
    until_waiting_now(store, "a", 1)
    overlong = threads.acquire(bounded)
    holds_a.release()
    moves.join(2)
    served = not moves.is_alive()
    overlong.release()
    moves.result().release()
    assert served
