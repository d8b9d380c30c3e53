"""Looking and operating: inspect, keys, set_limit, reset_limit, pause, resume, evict."""

from __future__ import annotations

import math

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, ConflictResolution, Limiter

from ._named_calls import NamedCalls
from ._tools import keys_in_use

KEY = LIMIT_BY.constant("key")
ONE = ConcurrencyLimit(KEY, max_concurrent=1)
TWO = ConcurrencyLimit(KEY, max_concurrent=2)
CANCEL = ConcurrencyLimit(KEY, on_conflict=ConflictResolution.CANCEL)


async def test_inspect_shows_holders_and_waiters(store):
    limiter = Limiter(store, label="me")
    async with NamedCalls(store) as calls, limiter.hold(TWO) as lease:
        await calls.start("wide", ConcurrencyLimit(KEY, max_concurrent=2, cost=2))
        seen = await limiter.inspect(TWO)
        assert (seen.key, seen.limit, seen.in_use, seen.waiting) == ("key", 2, 1, 1)
        assert (seen.paused, seen.override, seen.declared) == (False, None, (2,))
        (holder,) = seen.holders
        assert (holder.id, holder.cost, holder.label) == (lease.id, 1, "me")
        assert holder.fencing_token == lease.fencing_token
        assert holder.claimed
        assert not holder.preempted
        assert holder.held_for >= 0
        (waiter,) = seen.waiters
        assert (waiter.label, waiter.cost, waiter.durable) == ("wide", 2, False)


async def test_inspect_takes_a_limit_with_arguments_or_a_key(limiter, threads):
    by_customer = ConcurrencyLimit("customer_id", max_concurrent=3)
    async with limiter.hold(by_customer, {"customer_id": 42}):
        for seen in (
            await limiter.inspect(by_customer, {"customer_id": 42}),
            await limiter.inspect("customer_id=42"),
            threads.inspect(by_customer, {"customer_id": 42}),
            threads.inspect("customer_id=42"),
        ):
            assert (seen.key, seen.limit, seen.in_use) == ("customer_id=42", 3, 1)


async def test_inspecting_an_unused_key_leaves_nothing_behind(limiter, threads):
    assert (await limiter.inspect(TWO)).limit == 2
    assert (await limiter.inspect("other")).holders == ()
    assert threads.inspect(TWO).in_use == 0
    assert await keys_in_use(limiter) == []


async def test_inspect_shows_that_callers_disagree(limiter):
    async with limiter.hold(TWO):
        assert (await limiter.inspect(ConcurrencyLimit(KEY, max_concurrent=5))).declared == (2, 5)


async def test_holders_are_shown_with_host_and_process_by_default(limiter):
    async with limiter.hold(ONE):
        (holder,) = (await limiter.inspect("key")).holders
    assert holder.label.rpartition(":")[2].isdecimal()


async def test_raising_a_limit_wakes_exactly_the_difference(store, limiter):
    async with NamedCalls(store) as calls:
        for name in "abcd":
            await calls.start(name, ONE)
        await limiter.set_limit("key", 3)
        await calls.becomes("b", "runs")
        await calls.becomes("c", "runs")
        assert calls.waiting() == ["d"]
        assert (await limiter.inspect("key")).in_use == 3
    await limiter.reset_limit("key")


async def test_lowering_a_limit_drains_and_stops_nobody(store, threads):
    async with NamedCalls(store, "threads") as calls:
        for name in "abc":
            await calls.start(name, TWO)
        threads.set_limit("key", 1)
        await calls.finish("a")
        assert calls.became == {"a": "done", "b": "runs", "c": "asks"}
        await calls.finish("b")
        await calls.becomes("c", "runs")
    threads.reset_limit("key")


async def test_a_limit_of_zero_admits_nobody(store, limiter):
    await limiter.set_limit("key", 0)
    async with NamedCalls(store) as calls:
        await calls.start("waits", ONE)
        await calls.start("refused", CANCEL)
        assert calls.became == {"waits": "asks", "refused": "LimitReached"}
        assert await limiter.try_acquire(ONE) is None
        await limiter.reset_limit("key")
        await calls.becomes("waits", "runs")


async def test_an_override_stays_until_it_is_reset(limiter, threads):
    threads.set_limit("key", 2)
    assert await keys_in_use(limiter) == ["key"]
    async with limiter.hold(ONE), limiter.hold(ONE):
        seen = await limiter.inspect(ONE)
        assert (seen.limit, seen.override, seen.in_use) == (2, 2, 2)
    assert await keys_in_use(limiter) == ["key"]
    threads.reset_limit("key")
    assert (await limiter.inspect(ONE)).override is None


async def test_a_cost_above_an_override_waits_for_the_operator(store, limiter, threads):
    """The code is right, and the override is for a while."""
    wide = ConcurrencyLimit(KEY, max_concurrent=2, cost=2)
    await limiter.set_limit("key", 1)
    assert threads.try_acquire(wide) is None
    async with NamedCalls(store) as calls:
        await calls.start("wide", wide)
        assert calls.became == {"wide": "asks"}
        await limiter.reset_limit("key")
        await calls.becomes("wide", "runs")


async def test_a_paused_key_admits_nobody_and_leaves_holders_alone(store, limiter):
    async with NamedCalls(store) as calls:
        await calls.start("holder", TWO)
        await limiter.pause("key")
        await calls.start("waits", TWO)
        await calls.start("refused", CANCEL)
        assert calls.became == {"holder": "runs", "waits": "asks", "refused": "LimitReached"}
        seen = await limiter.inspect(TWO)
        assert (seen.paused, seen.limit, seen.waiting) == (True, 2, 1)
        await calls.finish("holder")
        assert calls.became["waits"] == "asks"
        await limiter.resume("key")
        await calls.becomes("waits", "runs")


async def test_pausing_and_resuming_a_free_key_leaves_nothing_behind(limiter, threads):
    threads.pause("key")
    await limiter.pause("key")
    assert await keys_in_use(limiter) == ["key"]
    assert threads.try_acquire(ONE) is None
    threads.resume("key")
    threads.resume("key")
    assert await keys_in_use(limiter) == []


@pytest.mark.parametrize("world", ["tasks", "threads"])
async def test_an_evicted_holder_loses_its_slot_to_the_next(store, limiter, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("stuck", ONE)
        await calls.start("next", ONE)
        (holder,) = (await limiter.inspect("key")).holders
        assert await limiter.evict(holder.id)
        await calls.becomes("stuck", "LeaseLost")
        await calls.becomes("next", "runs")
        assert not await limiter.evict(holder.id)


async def test_evicting_an_unknown_holder_says_so(limiter, threads):
    assert not await limiter.evict("nobody")
    assert not threads.evict("nobody")


async def test_a_waiter_cannot_be_evicted(store, limiter):
    async with NamedCalls(store) as calls:
        await calls.start("holder", ONE)
        await calls.start("waiter", ONE)
        (waiter,) = (await limiter.inspect("key")).waiters
        assert not await limiter.evict(waiter.id)
        assert calls.waiting() == ["waiter"]


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", None, True, math.inf, 10**19])
async def test_an_override_must_be_a_whole_number(limiter, threads, wrong):
    with pytest.raises(ConfigurationError, match="the limit must be"):
        await limiter.set_limit("key", wrong)
    with pytest.raises(ConfigurationError, match="the limit must be"):
        threads.set_limit("key", wrong)
    assert await keys_in_use(limiter) == []


@pytest.mark.parametrize("operation", ["pause", "resume", "reset_limit", "inspect"])
@pytest.mark.parametrize("wrong", ["", None, 5, TWO])
async def test_an_operator_names_a_key_by_its_text(limiter, threads, operation, wrong):
    if operation == "inspect" and wrong is TWO:
        wrong = [TWO]
    with pytest.raises(ConfigurationError):
        await getattr(limiter, operation)(wrong)
    with pytest.raises(ConfigurationError):
        getattr(threads, operation)(wrong)
    assert await keys_in_use(limiter) == []
