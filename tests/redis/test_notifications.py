"""Messages that come early, late, unreadable or never, and listeners that fail."""

from __future__ import annotations

import asyncio
import time

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Limiter,
    Preempted,
    SyncLimiter,
)
from limiter_core.requests import Answer, Demand, Granted, Loss, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.cluster.slot_map import SingleNodeMap
from limiter_redis.session import subscriber
from limiter_redis.session.renewal import LeaseRenewer
from limiter_redis.session.tracker import RequestTracker

from ._listeners import NotingListener
from ._proxy import Proxy
from ._servers import Process, Server
from ._tools import until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=60)
KEY = "one"


def waiting(tracker: RequestTracker, *, lease: float = 10.0) -> NotingListener:
    """Have somebody wait."""
    somebody = NotingListener()
    tracker.begin(Request("w", (Demand(KEY, 1),), lease, listener=somebody), time.monotonic())
    return somebody


def test_a_loss_wakes_a_waiter_that_has_not_received_the_grant() -> None:
    """S6: else it would wait for ever for a word that has gone by."""
    tracker = RequestTracker("limiter")
    somebody = waiting(tracker)
    tracker.settle(tracker.entries["w"].request, f"queued {KEY} 1 1 1 -", time.monotonic())
    tracker.receive(["lost w expired"], time.monotonic())
    assert (somebody.answers, somebody.losses) == ([None], [])
    tracker.renewed(tracker.entries["w"], "lost expired", time.monotonic())
    assert (somebody.answers, somebody.losses) == ([None, None], [])


def test_after_a_loss_that_came_before_its_grant_the_store_is_asked_at_once() -> None:
    """The loss may be that of this grant, or of one before; the store knows."""
    tracker = RequestTracker("limiter")
    somebody = waiting(tracker, lease=60.0)
    tracker.receive(["lost w preempted"], time.monotonic())
    assert somebody.losses == []
    request = tracker.entries["w"].request
    assert tracker.settle(request, "granted 7 60000000", time.monotonic()) == Granted(
        7, 54.0, margin=6.0
    )
    live = tracker.entries["w"]
    assert tracker.due(time.monotonic()) == [live]
    tracker.renewed(live, "preempted", time.monotonic())
    assert somebody.losses == [Loss.PREEMPTED]
    assert tracker.due(time.monotonic()) == [], "it is renewed like all others now"


async def test_a_holder_is_told_though_it_was_preempted_before_it_knew_of_its_grant(
    server: Server,
) -> None:
    """CANCEL_RUNNING: two calls of one turn of the event loop travel in one batch."""
    latest = ConcurrencyLimit(
        LIMIT_BY.constant("latest"), lease=60, on_conflict=ConflictResolution.CANCEL_RUNNING
    )
    async with Limiter(server.url) as limiter:

        async def hold(*, patient: bool) -> str:
            try:
                async with limiter.hold(latest):
                    if patient:
                        await asyncio.sleep(30)
                    return "ended"
            except Preempted:
                return "preempted"

        ends = await asyncio.gather(hold(patient=True), hold(patient=False))
    assert ends == ["preempted", "ended"]


def test_a_lease_counts_from_when_the_step_was_asked_for() -> None:
    """DESIGN §8: also of a grant that comes as news; one that comes late has to be confirmed."""
    tracker = RequestTracker("limiter")
    somebody = waiting(tracker)
    sent_at = time.monotonic() - 0.1
    tracker.receive(["answer w granted 7 10000000"], sent_at)
    assert tracker.entries["w"].expires_at == pytest.approx(sent_at + 9.0)
    assert somebody.answers == [Granted(7, 9.0, margin=1.0)]

    tracker = RequestTracker("limiter")
    somebody = waiting(tracker)
    tracker.receive(["answer w granted 7 10000000"], time.monotonic() - 3.0)
    assert somebody.answers == [None]
    assert tracker.entries["w"].waiting


def test_an_ask_that_fails_does_not_take_a_grant_away() -> None:
    """S10: news brought the grant while the same request was on its way, and then the way broke."""
    tracker = RequestTracker("limiter")
    waiting(tracker)
    tracker.receive(["answer w granted 7 10000000"], time.monotonic())
    granted = tracker.withdraw(tracker.entries["w"].request)
    assert granted is not None
    assert granted.fencing_token == 7
    assert "w" in tracker.entries, "it is renewed"
    tracker.end("w")
    waiting(tracker)
    assert tracker.withdraw(tracker.entries["w"].request) is None
    assert tracker.entries["w"].waiting, "it asks again, or says that it is gone"


class Failing:
    """A listener that always fails."""

    def look_again(self, answer: Answer | None = None) -> bool:
        raise RuntimeError("it is broken")

    def lease_renewed(self, expires_at: float) -> None:
        raise RuntimeError("it is broken")

    def lease_lost(self, loss: Loss) -> None:
        raise RuntimeError("it is broken")


def test_listeners_that_always_fail_are_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many there are, and whatever they are told: by messages, and when leases end."""
    tracker = RequestTracker("limiter")
    renewer = LeaseRenewer(tracker, None, SingleNodeMap(tracker.keyspace), lambda: None)  # type: ignore[arg-type,return-value]
    for number in range(1000):
        request = Request(f"w{number}", (Demand(KEY, 1),), lease=0.001, listener=Failing())
        tracker.begin(request, time.monotonic())
        tracker.receive([f"answer w{number} granted 7 1000"], time.monotonic())
    for _ in range(1000):
        renewer._carefully(tracker.expire, time.monotonic())
    said = [record.getMessage() for record in caplog.records]
    assert len([each for each in said if "it is broken" in each]) == 1, said[:5]


async def test_strange_messages_do_no_harm(
    server: Server, astore: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes over the channel: leases are renewed, and messages received, as before."""
    limiter = Limiter(astore)
    lease = await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=1.0))
    await until(lambda: astore.session.renewer.listening, "the renewer listens")
    for message in (b"hello", b"", b"\xff\xfe", b"shout x y", b"answer x granted one two"):
        server.admin.publish(astore.session.tracker.channel, message)
    await asyncio.sleep(1.5)
    assert not lease.lost
    other = RedisStore(server.url)
    assert await Limiter(other).evict(lease.id)
    await until(lambda: lease.lost, "the eviction is received")
    await lease.release()
    await other.aclose()
    assert "could not pass on" in caplog.text


def test_unreadable_news_are_said_now_and_then_with_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may write to the channel, as often as they like: the log must not grow with it."""
    tracker = RequestTracker("limiter")
    tracker.receive(["shout x y"] * 1000, time.monotonic(), in_callers_thread=True)
    for _ in range(1000):
        tracker.receive_undelivered("answer x granted one two")
    assert [record.getMessage().count("could not pass on") for record in caplog.records] == [1]
    assert "'shout x y'" in caplog.text

    caplog.clear()
    tracker = RequestTracker("limiter")
    monkeypatch.setattr("limiter_core.outage.SAY_AGAIN", 0.2)
    tracker.receive(["shout x y"] * 3, time.monotonic())
    time.sleep(0.3)
    tracker.receive(["shout x y"], time.monotonic())
    assert len(caplog.records) >= 2
    assert sum(record.getMessage().count(" more since") for record in caplog.records) >= 1


async def test_a_grant_whose_word_and_loss_are_missed(own_server: Process) -> None:
    """S6: a network away for longer than the lease, just when the slot was handed over."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=1.0)
    with Proxy(own_server.port) as proxy:
        here, there = RedisStore(proxy.url), RedisStore(own_server.url)
        limiter = Limiter(here)
        first = await limiter.acquire(limit)
        waiter = asyncio.create_task(limiter.acquire(limit))
        await until(
            lambda: sum(live.waiting for live in here.session.tracker.entries.values()) == 1,
            "it waits",
        )
        await asyncio.sleep(0.2)
        proxy.hold_up()
        # The step that hands the slot over, as if it were of this process: its reply is lost.
        there.session.tracker.process = here.session.tracker.process
        assert there.sync_face().release(first.id, first.keys)
        await asyncio.sleep(2.5)
        proxy.hang_up()
        proxy.let_pass()
        lease = await asyncio.wait_for(waiter, 10.0)
        await lease.release()
        await first.release()
        await here.aclose()
        await there.aclose()


def test_a_thread_hears_of_what_a_lost_reply_said(own_server: Process) -> None:
    """S6: whoever waits in this process looks again as soon as a reply was lost."""
    with Proxy(own_server.port) as proxy:
        store = RedisStore(proxy.url)
        face = store.sync_face()
        face.acquire(Request("holder", (Demand(KEY, 1),)))
        somebody = NotingListener()
        assert isinstance(face.acquire(Request("w", (Demand(KEY, 1),), listener=somebody)), Queued)
        until_now(lambda: store.session.renewer.listening, "the renewer listens")
        time.sleep(0.3)
        proxy.losing = 1
        face.release("holder", (KEY,))
        assert proxy.lost == 1
        until_now(lambda: somebody.answers, "the waiter is notified", patience=2.0)
        face.release("w", (KEY,))
        store.close()


def listens(server: Process, store: RedisStore) -> bool:
    return bool(server.admin.pubsub_numsub(store.session.tracker.channel)[0][1])


def test_a_subscription_that_fell_silent_is_renewed(
    own_server: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may be dead without a word."""
    monkeypatch.setattr(subscriber, "_CHECK", 0.3)
    with Proxy(own_server.port) as proxy:
        store = RedisStore(proxy.url)
        lease = SyncLimiter(store).acquire(ONE)
        until_now(lambda: store.session.renewer.listening, "the renewer listens")
        own_server.admin.client_kill_filter(_type="pubsub")
        until_now(lambda: listens(own_server, store), "it listens again")
        asked = own_server.commands().get("ping", 0)
        until_now(lambda: own_server.commands().get("ping", 0) > asked + 1, "it asks, with a reply")
        assert store.session.renewer.listening
        proxy.hold_up()
        until_now(lambda: not store.session.renewer.listening, "it gives the connection up")
        proxy.let_pass()
        until_now(lambda: store.session.renewer.listening, "and takes a new one")
        lease.release()
    store.close()


def test_renewals_name_the_key_that_is_waited_for() -> None:
    """S9: a ticket may wait in the queue of another of its keys."""
    tracker = RequestTracker("limiter")
    waiting(tracker)
    tracker.renewed(tracker.entries["w"], "waiting other/key 1000000", time.monotonic())
    assert set(tracker.requests.looks) == {"other/key"}
