"""The five conflict resolutions: what becomes of the running, the waiting and the newcomer."""

from __future__ import annotations

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution

from ._callers import Crew

pytestmark = pytest.mark.parametrize("world", ["tasks", "threads"])
KEY = LIMIT_BY.constant("key")


def limit(resolution: str, **options) -> ConcurrencyLimit:
    return ConcurrencyLimit(KEY, on_conflict=ConflictResolution[resolution], **options)


async def test_queue_leaves_the_running_alone_and_serves_in_arrival_order(store, world):
    async with Crew(store, world) as crew:
        for name in "abcd":
            await crew.start(name, limit("QUEUE"))
        assert crew.became["a"] == "runs"
        assert crew.waiting() == ["b", "c", "d"]
        await crew.finish(*"abcd")
    assert crew.served == ["a", "b", "c", "d"]
    assert set(crew.became.values()) == {"done"}


async def test_queue_is_the_default(store, world):
    async with Crew(store, world) as crew:
        for name in "ab":
            await crew.start(name, ConcurrencyLimit(KEY))
        assert crew.waiting() == ["b"]


async def test_priority_serves_the_highest_first_and_equals_in_arrival_order(store, world):
    async with Crew(store, world) as crew:
        await crew.start("running", limit("PRIORITY"))
        for name, priority in [("low", 1), ("high", 9), ("low too", 1), ("high too", 9)]:
            await crew.start(name, limit("PRIORITY", priority=priority))
        assert crew.became["running"] == "runs"
        assert crew.waiting() == ["high", "high too", "low", "low too"]
        await crew.finish("running", "high", "high too", "low")
    assert crew.served == ["running", "high", "high too", "low", "low too"]


async def test_priority_never_stops_the_running(store, world):
    async with Crew(store, world) as crew:
        await crew.start("low", limit("PRIORITY", priority=0))
        await crew.start("high", limit("PRIORITY", priority=9))
        assert crew.became == {"low": "runs", "high": "asks"}
    assert crew.became == {"low": "done", "high": "done"}


async def test_cancel_refuses_the_newcomer_at_once(store, world):
    async with Crew(store, world) as crew:
        await crew.start("running", limit("CANCEL"))
        await crew.start("waiting", limit("QUEUE"))
        await crew.start("newcomer", limit("CANCEL"))
        assert crew.became["newcomer"] == "LimitReached"
        assert crew.became["running"] == "runs"
        assert crew.waiting() == ["waiting"]
    assert crew.served == ["running", "waiting"]


async def test_cancel_admits_while_a_slot_is_free(store, world):
    async with Crew(store, world) as crew:
        for name in "abc":
            await crew.start(name, limit("CANCEL", max_concurrent=2))
        assert crew.became == {"a": "runs", "b": "runs", "c": "LimitReached"}
        await crew.finish("a")
        await crew.start("d", limit("CANCEL", max_concurrent=2))
        assert crew.became["d"] == "runs"


async def test_cancel_running_preempts_the_oldest_holder_only(store, world):
    async with Crew(store, world) as crew:
        for name in "ab":
            await crew.start(name, limit("CANCEL_RUNNING", max_concurrent=2))
        await crew.start("newcomer", limit("CANCEL_RUNNING", max_concurrent=2))
        await crew.becomes("a", "Preempted")
        await crew.becomes("newcomer", "runs")
        assert crew.became["b"] == "runs"
    assert crew.became == {"a": "Preempted", "b": "done", "newcomer": "done"}


async def test_cancel_running_preempts_until_the_newcomer_fits(store, world):
    async with Crew(store, world) as crew:
        for name in "abc":
            await crew.start(name, limit("CANCEL_RUNNING", max_concurrent=3))
        await crew.start("wide", limit("CANCEL_RUNNING", max_concurrent=3, cost=2))
        await crew.becomes("wide", "runs")
        assert crew.became == {"a": "Preempted", "b": "Preempted", "c": "runs", "wide": "runs"}


async def test_cancel_running_supersedes_every_waiting_call(store, world):
    async with Crew(store, world) as crew:
        await crew.start("running", limit("QUEUE", on_lost="warn"))
        for name in "ab":
            await crew.start(name, limit("QUEUE"))
        await crew.start("newcomer", limit("CANCEL_RUNNING"))
        await crew.becomes("a", "Superseded")
        await crew.becomes("b", "Superseded")
        await crew.finish("running")
        await crew.becomes("newcomer", "runs")


async def test_keep_latest_keeps_one_waiting_and_the_running(store, world):
    async with Crew(store, world) as crew:
        for name in "abcd":
            await crew.start(name, limit("KEEP_LATEST"))
        await crew.becomes("b", "Superseded")
        await crew.becomes("c", "Superseded")
        assert crew.became["a"] == "runs"
        assert crew.waiting() == ["d"]
    assert crew.became == {"a": "done", "b": "Superseded", "c": "Superseded", "d": "done"}


async def test_keep_latest_supersedes_all_that_wait_whatever_their_own_resolution(store, world):
    async with Crew(store, world) as crew:
        await crew.start("running", limit("QUEUE"))
        await crew.start("queued", limit("QUEUE"))
        await crew.start("urgent", limit("PRIORITY", priority=9))
        await crew.start("latest", limit("KEEP_LATEST"))
        await crew.becomes("queued", "Superseded")
        await crew.becomes("urgent", "Superseded")
        assert crew.waiting() == ["latest"]


async def test_keep_latest_takes_a_free_slot_without_disturbing_anybody(store, world):
    async with Crew(store, world) as crew:
        for name in "ab":
            await crew.start(name, limit("KEEP_LATEST", max_concurrent=2))
        assert crew.became == {"a": "runs", "b": "runs"}


async def test_resolutions_judge_their_own_key_only(store, world):
    by_tenant = ConcurrencyLimit("tenant", on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with Crew(store, world) as crew:
        await crew.start("a", by_tenant, {"tenant": 1})
        await crew.start("b", by_tenant, {"tenant": 2})
        assert crew.became == {"a": "runs", "b": "runs"}
