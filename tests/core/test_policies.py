"""Limits by name: a policy for all keys of a limit, and the log of changes (S22, S23)."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._named_calls import NamedCalls

BILLING = ConcurrencyLimit("customer", max_concurrent=3, name="billing")
SAME_KEY = ConcurrencyLimit("customer", max_concurrent=3, name="crm")
A = {"customer": "a"}
B = {"customer": "b"}


async def test_a_number_is_for_all_keys_of_a_name_also_future_ones(limiter):
    await limiter.set_name_limit("billing", 1)
    async with limiter.hold(BILLING, A), limiter.hold(BILLING, B):
        assert await limiter.try_acquire(BILLING, A) is None
        async with limiter.hold(BILLING, {"customer": "new"}, timeout=0):
            pass
        assert (await limiter.inspect(BILLING, A)).limit == 1
    await limiter.reset_name_limit("billing")
    assert (await limiter.inspect(BILLING, A)).limit == 3


@pytest.mark.parametrize(("share", "number"), [("50%", 2), ("1%", 1), ("0%", 0), ("200 %", 6)])
async def test_a_share_is_of_what_the_code_declares_rounded_up(limiter, share, number):
    await limiter.set_name_limit("billing", share)
    assert (await limiter.inspect(BILLING, A)).limit == number


async def test_an_override_of_a_key_counts_before_the_policy_of_its_name(limiter):
    await limiter.set_name_limit("billing", 0)
    await limiter.set_limit("customer=a", 1)
    async with limiter.hold(BILLING, A):
        assert await limiter.try_acquire(BILLING, A) is None
    assert await limiter.try_acquire(BILLING, B) is None
    await limiter.reset_limit("customer=a")


async def test_of_two_names_on_a_key_each_call_goes_by_its_own(store, limiter):
    await limiter.pause_name("billing")
    async with NamedCalls(store) as calls:
        await calls.start("billed", BILLING, A)
        assert calls.waiting() == ["billed"]
        async with limiter.hold(SAME_KEY, B, timeout=0):
            pass
        await limiter.resume_name("billing")
        await calls.becomes("billed", "runs")


async def test_a_change_reaches_those_who_wait(store, limiter):
    async with NamedCalls(store) as calls:
        for name in "abcd":
            await calls.start(name, BILLING, A)
        assert calls.waiting() == ["d"]
        await limiter.set_name_limit("billing", 4)
        await calls.becomes("d", "runs")


async def test_a_policy_with_a_duration_ends_by_itself():
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limiter = Limiter(store)
    await limiter.set_name_limit("billing", 1, lasts=timedelta(minutes=30))
    await limiter.pause_name("billing", lasts=60)
    async with NamedCalls(store) as calls:
        for name in "abc":
            await calls.start(name, BILLING, A)
        assert calls.waiting() == ["a", "b", "c"]
        clock.advance(61)
        await calls.becomes("a", "runs")
        assert calls.waiting() == ["b", "c"]
        (policy,) = await limiter.policies()
        assert (policy.value, policy.ends_in) == ("1", 30 * 60 - 61)
        clock.advance(30 * 60)
        await calls.becomes("b", "runs")
        await calls.becomes("c", "runs")
        assert await limiter.policies() == ()


async def test_a_call_that_is_wider_than_the_number_waits(store, limiter):
    wide = ConcurrencyLimit("customer", max_concurrent=3, cost=2, name="billing")
    await limiter.set_name_limit("billing", 1)
    async with NamedCalls(store) as calls:
        await calls.start("wide", wide, A)
        assert calls.waiting() == ["wide"]
        await limiter.set_name_limit("billing", 2)
        await calls.becomes("wide", "runs")


async def test_the_log_says_who_changed_what_and_why(limiter, threads):
    await limiter.set_limit("customer=a", 5, reason="sale", by="ann")
    await limiter.set_limit("customer=a", 6)
    await limiter.reset_limit("customer=a", by="bob")
    threads.pause("customer=a", by="bob")
    threads.resume("customer=a", by="bob")
    threads.set_name_limit("billing", "50%", lasts=60, reason="slow bank", by="ann")
    threads.pause_name("billing", by="bob")
    lease = threads.try_acquire(ConcurrencyLimit(LIMIT_BY.constant("other")))
    assert threads.evict(lease.id, by="ann", reason="stuck")
    lease.release()
    assert not threads.evict(lease.id)
    log = threads.changes()
    assert log == await limiter.changes()
    assert [(each.action, each.key or each.name, each.old, each.new, each.by) for each in log] == [
        ("evict", "", lease.id, "", "ann"),
        ("pause", "billing", "", "paused", "bob"),
        ("set", "billing", "", "50%", "ann"),
        ("resume", "customer=a", "paused", "", "bob"),
        ("pause", "customer=a", "", "paused", "bob"),
        ("reset", "customer=a", "6", "", "bob"),
        ("set", "customer=a", "5", "6", log[6].by),
        ("set", "customer=a", "", "5", "ann"),
    ]
    assert log[6].by.rpartition(":")[2].isdecimal()
    assert (log[2].reason, log[2].lasts) == ("slow bank", 60)
    assert [each.at for each in log] == sorted((each.at for each in log), reverse=True)


def test_the_log_keeps_the_last_hundred_changes(threads):
    for number in range(105):
        threads.set_limit("k", number)
    threads.reset_limit("k")
    assert [each.new for each in threads.changes()] == ["", *[str(n) for n in range(104, 5, -1)]]


@pytest.mark.parametrize(
    "limit",
    [-1, True, "-1", "five", "50", "1.5%", "99999%", "", None, 2.5, 10**16, "9" * 16, "9" * 5000],
)
async def test_a_wrong_number_is_refused(limiter, limit):
    if limit == "50":
        assert (await limiter.set_name_limit("billing", limit)).new == "50"
        return
    with pytest.raises(ConfigurationError, match="limit"):
        await limiter.set_name_limit("billing", limit)
    assert await limiter.policies() == ()


@pytest.mark.parametrize("name", ["", " ", None, "a\nb", 7, "n" * 101])
async def test_a_wrong_name_is_refused(limiter, name):
    with pytest.raises(ConfigurationError, match="name"):
        await limiter.pause_name(name)


@pytest.mark.parametrize("lasts", [0, -1, float("nan"), float("inf"), "1h", 1e12])
async def test_a_wrong_duration_is_refused(limiter, lasts):
    with pytest.raises(ConfigurationError, match="lasts"):
        await limiter.pause_name("billing", lasts=lasts)


async def test_a_copy_of_a_limiter_operates_on_the_same_store(limiter):
    await copy.copy(limiter).set_name_limit("billing", 2)
    assert [policy.value for policy in await limiter.policies()] == ["2"]


class _Capabilities:
    """Those of a store that was written before policies."""

    durable = sync = asynchronous = spans_scopes = True
    suspends = sure_release = False


class OlderStore(MemoryStore):
    @property
    def capabilities(self):
        return _Capabilities()


async def test_a_store_without_policies_says_so():
    limiter = SyncLimiter(OlderStore())
    limiter.set_limit("customer=a", 2, reason="as before")
    with limiter.hold(BILLING, A):
        assert limiter.inspect("customer=a").limit == 2
    for call in (limiter.policies, limiter.changes, lambda: limiter.pause_name("billing")):
        with pytest.raises(ConfigurationError, match="keeps no limits by name"):
            call()
