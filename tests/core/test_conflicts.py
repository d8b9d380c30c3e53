"""The five conflict resolutions: what becomes of the running, the waiting and the newcomer."""

from __future__ import annotations

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution

from ._named_calls import NamedCalls

pytestmark = pytest.mark.parametrize("world", ["tasks", "threads"])
KEY = LIMIT_BY.constant("key")


def limit(resolution: str, **options) -> ConcurrencyLimit:
    return ConcurrencyLimit(KEY, on_conflict=ConflictResolution[resolution], **options)


async def test_queue_leaves_the_running_alone_and_serves_in_arrival_order(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "abcd":
            await calls.start(name, limit("QUEUE"))
        assert calls.became["a"] == "runs"
        assert calls.waiting() == ["b", "c", "d"]
        await calls.finish(*"abcd")
    assert calls.served == ["a", "b", "c", "d"]
    assert set(calls.became.values()) == {"done"}


async def test_queue_is_the_default(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "ab":
            await calls.start(name, ConcurrencyLimit(KEY))
        assert calls.waiting() == ["b"]


async def test_priority_serves_the_highest_first_and_equals_in_arrival_order(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", limit("PRIORITY"))
        for name, priority in [("low", 1), ("high", 9), ("low too", 1), ("high too", 9)]:
            await calls.start(name, limit("PRIORITY", priority=priority))
        assert calls.became["running"] == "runs"
        assert calls.waiting() == ["high", "high too", "low", "low too"]
        await calls.finish("running", "high", "high too", "low")
    assert calls.served == ["running", "high", "high too", "low", "low too"]


async def test_priority_never_stops_the_running(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("low", limit("PRIORITY", priority=0))
        await calls.start("high", limit("PRIORITY", priority=9))
        assert calls.became == {"low": "runs", "high": "asks"}
    assert calls.became == {"low": "done", "high": "done"}


async def test_cancel_refuses_the_newcomer_at_once(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", limit("CANCEL"))
        await calls.start("waiting", limit("QUEUE"))
        await calls.start("newcomer", limit("CANCEL"))
        assert calls.became["newcomer"] == "LimitReached"
        assert calls.became["running"] == "runs"
        assert calls.waiting() == ["waiting"]
    assert calls.served == ["running", "waiting"]


async def test_cancel_admits_while_a_slot_is_free(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "abc":
            await calls.start(name, limit("CANCEL", max_concurrent=2))
        assert calls.became == {"a": "runs", "b": "runs", "c": "LimitReached"}
        await calls.finish("a")
        await calls.start("d", limit("CANCEL", max_concurrent=2))
        assert calls.became["d"] == "runs"


async def test_cancel_running_preempts_the_oldest_holder_only(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "ab":
            await calls.start(name, limit("CANCEL_RUNNING", max_concurrent=2))
        await calls.start("newcomer", limit("CANCEL_RUNNING", max_concurrent=2))
        await calls.becomes("a", "Preempted")
        await calls.becomes("newcomer", "runs")
        assert calls.became["b"] == "runs"
    assert calls.became == {"a": "Preempted", "b": "done", "newcomer": "done"}


async def test_cancel_running_preempts_until_the_newcomer_fits(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "abc":
            await calls.start(name, limit("CANCEL_RUNNING", max_concurrent=3))
        await calls.start("wide", limit("CANCEL_RUNNING", max_concurrent=3, cost=2))
        await calls.becomes("wide", "runs")
        assert calls.became == {"a": "Preempted", "b": "Preempted", "c": "runs", "wide": "runs"}


async def test_cancel_running_supersedes_every_waiting_call(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", limit("QUEUE", on_lost="warn"))
        for name in "ab":
            await calls.start(name, limit("QUEUE"))
        await calls.start("newcomer", limit("CANCEL_RUNNING"))
        await calls.becomes("a", "Superseded")
        await calls.becomes("b", "Superseded")
        await calls.finish("running")
        await calls.becomes("newcomer", "runs")


async def test_keep_latest_keeps_one_waiting_and_the_running(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "abcd":
            await calls.start(name, limit("KEEP_LATEST"))
        await calls.becomes("b", "Superseded")
        await calls.becomes("c", "Superseded")
        assert calls.became["a"] == "runs"
        assert calls.waiting() == ["d"]
    assert calls.became == {"a": "done", "b": "Superseded", "c": "Superseded", "d": "done"}


async def test_keep_latest_supersedes_all_that_wait_whatever_their_own_resolution(store, world):
    async with NamedCalls(store, world) as calls:
        await calls.start("running", limit("QUEUE"))
        await calls.start("queued", limit("QUEUE"))
        await calls.start("urgent", limit("PRIORITY", priority=9))
        await calls.start("latest", limit("KEEP_LATEST"))
        await calls.becomes("queued", "Superseded")
        await calls.becomes("urgent", "Superseded")
        assert calls.waiting() == ["latest"]


async def test_keep_latest_takes_a_free_slot_without_disturbing_anybody(store, world):
    async with NamedCalls(store, world) as calls:
        for name in "ab":
            await calls.start(name, limit("KEEP_LATEST", max_concurrent=2))
        assert calls.became == {"a": "runs", "b": "runs"}


async def test_resolutions_judge_their_own_key_only(store, world):
    by_tenant = ConcurrencyLimit("tenant", on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with NamedCalls(store, world) as calls:
        await calls.start("a", by_tenant, {"tenant": 1})
        await calls.start("b", by_tenant, {"tenant": 2})
        assert calls.became == {"a": "runs", "b": "runs"}
