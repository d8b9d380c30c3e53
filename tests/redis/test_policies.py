"""Limits by name on Redis: processes, ends by the server's clock, the log (S22, S23)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from limiter_core import Change, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.requests import Demand, Granted, Presence, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.protocol import commands, policies

from ._servers import Process
from ._tools import until_now

BILLING = ConcurrencyLimit("customer", max_concurrent=3, name="billing")
A = {"customer": "a"}


async def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> float:
    """Wait for a condition; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"{what} did not come true"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def other(server):
    """The operator's limiter, on connections of its own."""
    with SyncLimiter(server.url) as limiter:
        yield limiter
        for policy in limiter.policies():
            limiter.reset_name_limit(policy.name)
            limiter.resume_name(policy.name)


async def test_a_waiter_of_another_process_runs_when_the_number_is_raised(server, other):
    other.set_name_limit("billing", 1)
    async with Limiter(server.url) as limiter, asyncio.TaskGroup() as tasks:
        first = await limiter.acquire(BILLING, A)
        second = tasks.create_task(limiter.acquire(BILLING, A))
        await until(lambda: other.inspect("customer=a").waiting == 1, "the second waits")
        other.set_name_limit("billing", 2)
        lease = await asyncio.wait_for(second, 2)
        await lease.release()
        await first.release()


async def test_a_new_call_obeys_a_change_within_a_second(server, other):
    async with Limiter(server.url) as limiter:
        holder = await limiter.acquire(BILLING, A)
        other.pause_name("billing")

        async def refused() -> bool:
            lease = await limiter.try_acquire(BILLING, {"customer": "new"})
            if lease is not None:
                await lease.release()
            return lease is None

        began = time.monotonic()
        while not await refused():
            assert time.monotonic() < began + 1
        await holder.release()


async def test_a_process_that_starts_later_obeys_from_its_first_call(server, other):
    other.pause_name("billing")
    async with Limiter(server.url) as limiter:
        assert await limiter.try_acquire(BILLING, A) is None
    with SyncLimiter(server.url) as threads:
        assert threads.try_acquire(BILLING, A) is None


async def test_a_change_whose_notice_is_lost_is_in_force_within_five_seconds(own_server: Process):
    """The operator may not publish: calls obey, and the waiters run."""
    own_server.admin.execute_command(
        "ACL", "SETUSER", "mute", "reset", "on", ">x", "allkeys", "allchannels", "+@all", "-publish"
    )
    mute = SyncLimiter(own_server.url.replace("redis://", "redis://mute:x@"))
    async with Limiter(own_server.url) as limiter:
        holder = await limiter.acquire(BILLING, {"customer": "holds"})
        mute.pause_name("billing")
        began = time.monotonic()
        while (lease := await limiter.try_acquire(BILLING, A)) is not None:
            await lease.release()
            assert time.monotonic() < began + 5.5
        waiter = asyncio.create_task(limiter.acquire(BILLING, A))
        await until(lambda: mute.inspect("customer=a").waiting == 1, "it waits")
        mute.resume_name("billing")
        await (await asyncio.wait_for(waiter, 5)).release()
        await holder.release()
    mute.close()


async def test_a_policy_ends_by_the_clock_of_the_server(server, other):
    other.pause_name("billing", lasts=1.0)
    other.set_name_limit("billing", "50%", lasts=2.0)
    async with Limiter(server.url) as limiter, asyncio.TaskGroup() as tasks:
        waiters = [tasks.create_task(limiter.acquire(BILLING, A)) for _ in range(3)]
        await until(lambda: other.inspect("customer=a").waiting == 3, "all wait")
        await until(lambda: sum(task.done() for task in waiters) == 2, "half of them run")
        await until(lambda: all(task.done() for task in waiters), "all run")
        assert other.policies() == ()
        for task in waiters:
            await task.result().release()


async def test_dormant_and_durable_tickets_are_judged_anew(server, other):
    face = RedisStore(server.url).sync_face()
    demand = Demand("k", 1, name="billing")
    other.pause_name("billing", lasts=600)
    job = Request("job", (demand,), payload=b"j")
    assert isinstance(face.acquire(job), Queued)
    assert face.inspect("k").waiters[0].limit == 0
    other.resume_name("billing")
    assert isinstance(face.acquire(job), Granted)
    face.release("job")
    face.close()


async def test_a_durable_ticket_is_granted_when_a_pause_ends_by_itself(server, other):
    face = RedisStore(server.url).sync_face()
    other.pause_name("billing", lasts=0.5)
    job = Request("job", (Demand("k", 1, name="billing"),), payload=b"j")
    assert isinstance(face.acquire(job), Queued)
    notices = []
    face.on_notice(notices.append)

    def swept() -> bool:
        face.sweep()
        return bool(notices)

    assert await until(swept, "the job is offered its slot") < 3
    face.on_notice(None)
    face.release("job")
    face.close()


async def test_many_waiters_are_judged_in_chunks(server, other):
    face = RedisStore(server.url).sync_face()
    other.pause_name("billing")
    jobs = [
        Request(f"job-{n}", (Demand("k", 500, name="billing"),), payload=b"j") for n in range(400)
    ]
    for job in jobs:
        assert isinstance(face.acquire(job), Queued)
    other.set_name_limit("billing", 300)
    other.resume_name("billing")
    snapshot = other.inspect("k")
    assert (snapshot.in_use, snapshot.waiting) == (300, 100)
    assert {each.limit for each in snapshot.waiters} == {300}
    other.reset_name_limit("billing")
    assert other.inspect("k").in_use == 400
    for job in jobs:
        face.release(job.id)
    face.close()


def test_a_policy_with_an_end_has_an_expiry_and_the_log_too(server, other):
    names = ["{limiter}:policies", "{limiter}:changes"]
    other.set_name_limit("billing", 3, lasts=60)
    assert 60 < server.admin.ttl(names[0]) <= 125
    other.set_name_limit("crm", 3)
    assert server.admin.ttl(names[0]) == -1
    other.reset_name_limit("crm")
    assert 60 < server.admin.ttl(names[0]) <= 125
    assert server.admin.ttl(names[1]) > 0
    other.reset_name_limit("billing")
    assert not server.admin.exists(names[0])


def test_what_was_set_is_read_as_it_was_given(other):
    other.set_name_limit("région, 50 %|-;", "50%", lasts=60, reason="a; b | | c", by="ann|-")
    other.pause_name("région, 50 %|-;", reason="-")
    share, pause = other.policies()
    assert (share.name, share.value, share.reason, share.by) == (
        "région, 50 %|-;",
        "50%",
        "a; b | | c",
        "ann|-",
    )
    assert 50 < share.ends_in <= 60
    assert abs(share.set_at - time.time()) < 60
    assert (pause.name, pause.value, pause.reason, pause.ends_in) == (
        "région, 50 %|-;",
        "paused",
        "-",
        None,
    )
    changes = other.changes()[:2]
    assert [(each.action, each.name, each.old, each.new) for each in changes] == [
        ("pause", "région, 50 %|-;", "", "paused"),
        ("set", "région, 50 %|-;", "", "50%"),
    ]
    assert changes[1].lasts == 60


def test_the_log_keeps_the_last_hundred(other):
    for number in range(103):
        other.set_limit("k", number)
    other.reset_limit("k")
    log = other.changes()
    assert len(log) == 100
    assert [each.new for each in log[:3]] == ["", "102", "101"]
    assert log[0].old == "102"


PAUSED = Presence("queue:paused", "worker")
MANY = 1000
"""Tickets of a key: more than one step judges."""


def job(ticket: str, key: str, order: int | None = None) -> Request:
    demand = Demand(key, 1, name="billing")
    return Request(ticket, (demand,), payload=b"job", claim=600.0, order=order, presence=PAUSED)


@pytest.mark.parametrize("operator", ["threads", "asyncio"])
def test_a_key_that_cannot_be_read_keeps_no_other_from_a_change(server, other, operator):
    face = RedisStore(server.url).sync_face()
    for number in range(5):
        assert isinstance(face.acquire(job(f"holder-{number}", f"k{number}")), Granted)
        assert isinstance(face.acquire(job(f"job-{number}", f"k{number}")), Queued)
    server.admin.rpush("{limiter:damaged}:state", "no state")
    if operator == "threads":
        other.set_name_limit("billing", 2)
    else:

        async def change() -> None:
            async with Limiter(server.url) as limiter:
                await limiter.set_name_limit("billing", 2)

        asyncio.run(change())
    assert [other.inspect(f"k{number}").in_use for number in range(5)] == [2] * 5
    server.admin.delete("{limiter:damaged}:state")
    for number in range(5):
        face.release(f"job-{number}", (f"k{number}",))
        face.release(f"holder-{number}", (f"k{number}",))
    face.close()


def test_of_two_changes_at_once_the_later_counts_for_all_who_wait(server, other):
    """The earlier one is applied last."""
    first, later = RedisStore(server.url).sync_face(), other
    assert isinstance(first.acquire(job("holder", "k")), Granted)
    assert isinstance(first.acquire(job("waits", "k")), Queued)
    keys = first.keys

    def change_meanwhile() -> Iterator[str]:
        first.keys = keys
        later.pause_name("billing")
        return keys()

    first.keys = change_meanwhile
    first.change_policy(Change("set", name="billing", new="1"))
    assert [each.value for each in later.policies()] == ["1", "paused"]
    assert [each.limit for each in later.inspect("k").waiters] == [0]
    first.release("waits", ("k",))
    first.release("holder", ("k",))
    first.close()


def test_a_ticket_that_a_process_sent_before_it_knew_of_a_change_is_judged_among_many(
    server, other
):
    store = RedisStore(server.url)
    face = store.sync_face()
    assert isinstance(face.acquire(job("holder", "k")), Granted)
    for number in range(MANY):
        face.acquire(job(f"job-{number}", "k"))
    other.pause_name("billing")
    store.session.tracker.policies.noticed()
    store.session.tracker.policies.valid_until = 0.0
    assert isinstance(face.acquire(job("first", "k", order=1)), Queued)
    other.resume_name("billing")
    # It relies on what it read, as nothing runs in the background yet that could be told.
    assert isinstance(face.acquire(job("second", "k", order=2)), Queued)
    assert other.inspect("k").waiters[1].limit == 0
    face.on_notice(lambda _: None)

    def judged() -> bool:
        return [each.limit for each in other.inspect("k").waiters[:2]] == [1, 1]

    until_now(judged, "both are judged by what is in force")
    face.on_notice(None)
    for ticket in ("holder", "first", "second", *(f"job-{number}" for number in range(MANY))):
        face.withdraw(ticket, ("k",)) or face.release(ticket, ("k",))
    face.close()


def test_a_ticket_of_the_same_call_is_judged(server, other):
    """The call of an event loop that waits and the change of a policy may travel together."""
    store = RedisStore(server.url)
    face = store.sync_face()
    assert isinstance(face.acquire(job("holder", "k")), Granted)
    acquire = commands.acquire(job("job", "k"), {}, 0.0)
    judge = policies.apply("k", "billing", "0,-,0", "0")
    queued, cursor = store.session.sync_transport().call([acquire, judge])[:2]
    assert queued.startswith("queued ")
    assert cursor == "0"
    assert [each.limit for each in face.inspect("k").waiters] == [0]
    face.release("job", ("k",))
    face.release("holder", ("k",))
    face.close()
