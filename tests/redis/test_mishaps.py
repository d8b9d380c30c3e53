"""What must not harm: lost news, late news, strange messages, bad keys, thrown-away keys, forks."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    Limiter,
    Preempted,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Answer, Demand, Granted, Loss, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.session import subscriber
from limiter_redis.session.renewal import LeaseRenewer
from limiter_redis.session.tracker import RequestTracker
from tests.core._tools import fork

from ._fake_time import FAKED, ServerClock
from ._proxy import Proxy
from ._servers import Process, Server, binary
from ._tools import until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=60)
KEY = "one"


class Somebody:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.losses: list[Loss] = []

    def look_again(self, answer: Answer | None = None) -> bool:
        self.answers.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Nothing to do."""

    def lease_lost(self, loss: Loss) -> None:
        self.losses.append(loss)


def waiting(tracker: RequestTracker, *, lease: float = 10.0) -> Somebody:
    """Have somebody wait."""
    somebody = Somebody()
    tracker.begin(Request("w", (Demand(KEY, 1),), lease, listener=somebody), time.monotonic())
    return somebody


# -- news ------------------------------------------------------------------------------------------


def test_a_loss_wakes_who_has_not_heard_of_the_grant() -> None:
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
    keeper = LeaseRenewer(tracker, lambda _: redis.Redis(), lambda _: None)  # type: ignore[arg-type,return-value]
    for number in range(1000):
        request = Request(f"w{number}", (Demand(KEY, 1),), lease=0.001, listener=Failing())
        tracker.begin(request, time.monotonic())
        tracker.receive([f"answer w{number} granted 7 1000"], time.monotonic())
    over = Turns(1000)
    keeper._watch_deadlines(over)  # type: ignore[arg-type]
    assert not over.left
    said = [record.getMessage() for record in caplog.records]
    assert len([each for each in said if "it is broken" in each]) == 1, said[:5]


class Turns:
    """An event that is set after so many looks at it, none of which waits."""

    def __init__(self, left: int) -> None:
        self.left = left

    def wait(self, _: float) -> bool:
        self.left -= 1
        return self.left <= 0


async def test_strange_messages_do_no_harm(
    server: Server, astore: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes over the channel: leases are renewed, and messages heard, as before."""
    limiter = Limiter(astore)
    lease = await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=1.0))
    await until(lambda: astore.session.renewer.listening, "the keeper listens")
    for message in (b"hello", b"", b"\xff\xfe", b"shout x y", b"answer x granted one two"):
        server.admin.publish(astore.session.tracker.channel, message)
    await asyncio.sleep(1.5)
    assert not lease.lost
    other = RedisStore(server.url)
    assert await Limiter(other).evict(lease.id)
    await until(lambda: lease.lost, "the eviction is heard")
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
        somebody = Somebody()
        assert isinstance(face.acquire(Request("w", (Demand(KEY, 1),), listener=somebody)), Queued)
        until_now(lambda: store.session.renewer.listening, "the keeper listens")
        time.sleep(0.3)
        proxy.losing = 1
        face.release("holder", (KEY,))
        assert proxy.lost == 1
        until_now(lambda: somebody.answers, "the waiter is told", patience=2.0)
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
        until_now(lambda: store.session.renewer.listening, "the keeper listens")
        own_server.admin.client_kill_filter(_type="pubsub")
        until_now(lambda: listens(own_server, store), "it listens again")
        asked = own_server.commands().get("ping", 0)
        until_now(lambda: own_server.commands().get("ping", 0) > asked + 1, "it asks, and hears")
        assert store.session.renewer.listening
        proxy.hold_up()
        until_now(lambda: not store.session.renewer.listening, "it gives the connection up")
        proxy.let_pass()
        until_now(lambda: store.session.renewer.listening, "and takes a new one")
        lease.release()
    store.close()


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["limit", "pause"])
def test_a_dead_holder_of_a_key_that_is_kept_is_reaped(
    change: str, server: Server, clock: ServerClock
) -> None:
    """S2, S14: what an operator said stays, and with it what tells when its holders end."""
    store = RedisStore(server.url, script=FAKED)
    face = store.sync_face()
    face.acquire(Request("dead", (Demand(KEY, 1),), lease=1.0))
    if change == "limit":
        face.set_limit(KEY, 1)
    else:
        face.pause(KEY)
    assert [server.admin.ttl(f"{{limiter:one}}:{part}") for part in ("state", "ends")] == [-1, -1]
    face.acquire(Request("also", (Demand("two", 1),), lease=1.0))
    clock.advance(200)
    face.resume(KEY)
    face.set_limit(KEY, 1)
    assert isinstance(face.acquire(Request("next", (Demand(KEY, 1),))), Granted)
    face.reset_limit(KEY)
    names = server.admin.keys("{limiter:one}:*")
    assert all(server.admin.ttl(name) > 0 for name in names)
    face.release("next")
    store.sync_face().sweep()
    store.close()


@pytest.mark.parametrize("lost", ["ends", "queue"])
def test_what_the_server_threw_away_is_made_anew(
    lost: str, server: Server, clock: ServerClock
) -> None:
    """Row 22: a key alone is evicted; waiters are served, and the dead are reaped, all the same."""
    store = RedisStore(server.url, script=FAKED)
    face = store.sync_face()
    demand = Demand(KEY, 1)
    face.acquire(Request("holder", (demand,), lease=10.0))
    for name in ("first", "second"):
        face.acquire(Request(name, (demand,), lease=100.0))
    server.admin.delete(f"{{limiter:one}}:{lost}")
    if lost == "ends":
        face.renew(["first"])
        clock.advance(11)
    else:
        face.release("holder", (KEY,))
    assert isinstance(face.acquire(Request("first", (demand,))), Granted)
    assert [each.id for each in face.inspect(KEY).waiters] == ["second"]
    for name in ("first", "second"):
        face.release(name, (KEY,))
    assert list(face.keys()) == []
    store.close()


def test_a_renewal_serves_what_was_left_over(server: Server, store: RedisStore) -> None:
    """S6, S16: the news that there is more to do may be lost."""
    face = store.sync_face()
    face.acquire(Request("holder", (Demand(KEY, 1),)))
    for name in ("first", "second"):
        face.acquire(Request(name, (Demand(KEY, 1),)))
    server.admin.hset("{limiter:one}:state", "override", 2)  # and nobody is served
    assert face.inspect(KEY).waiting == 2
    face.renew(["second"])
    assert face.inspect(KEY).waiting == 1
    assert isinstance(face.acquire(Request("first", (Demand(KEY, 1),))), Granted)
    face.reset_limit(KEY)
    for name in ("holder", "first", "second"):
        face.release(name, (KEY,))


async def test_a_bad_key_harms_only_its_own_callers(server: Server, astore: RedisStore) -> None:
    """Operations travel together, and fail alone."""
    server.admin.lpush("{limiter:bad}:state", "not ours")
    server.admin.expire("{limiter:bad}:state", 60)
    limiter = Limiter(astore)
    limits = [ConcurrencyLimit(LIMIT_BY.constant(f"good-{number}")) for number in range(5)]
    bad = ConcurrencyLimit(LIMIT_BY.constant("bad"))
    done = await asyncio.gather(
        *(limiter.acquire(limit) for limit in limits[:2]),
        limiter.acquire(bad),
        limiter.inspect(bad),
        *(limiter.acquire(limit) for limit in limits[2:]),
        return_exceptions=True,
    )
    assert [isinstance(each, StoreError) for each in done] == [False] * 2 + [True] * 2 + [False] * 3
    for lease in (*done[:2], *done[4:]):
        await lease.release()  # type: ignore[union-attr]
    server.admin.delete("{limiter:bad}:state")
    assert [key async for key in limiter.keys()] == []


def test_an_eviction_is_remembered_for_longer_than_a_renewal_takes(
    server: Server, store: RedisStore
) -> None:
    """S10: who hears of it late does not take it for a loss of data."""
    face = store.sync_face()
    face.acquire(Request("holder", (Demand(KEY, 1),), lease=600.0))
    assert face.evict("holder")
    assert server.admin.ttl("{limiter:one}:ended:holder") >= 1199


def test_limits_of_any_size(store: RedisStore) -> None:
    """S12: the number that means "no limit" is written out like any other."""
    face = store.sync_face()
    for number in range(2):
        face.acquire(Request(f"r{number}", (Demand(KEY, 10**18),)))
    assert face.inspect(KEY).limit == 10**18
    face.pause(KEY)
    assert isinstance(face.acquire(Request("w", (Demand(KEY, 10**18),))), Queued)
    assert face.inspect(KEY).waiters[0].limit == 10**18
    face.resume(KEY)
    for name in ("w", "r0", "r1"):
        face.release(name, (KEY,))


def test_a_durable_ticket_of_a_scope_touches_one_slot(server: Server, store: RedisStore) -> None:
    """Cluster: all that a step touches is under one hash tag; but for the list of scopes."""
    face = store.sync_face()
    key = f"jobs/{KEY}"
    face.acquire(Request("holder", (Demand(key, 1),)))
    face.acquire(Request("job", (Demand(key, 1),), payload=b"job", claim=0.05))
    face.release("holder", (key,))
    names = set(server.admin.scan_iter("{limiter*")) - {"{limiter}:scopes"}
    assert {name.partition("}")[0] for name in names} == {"{limiter:jobs"}
    assert isinstance(face.acquire(Request("job", (Demand(key, 1),), payload=b"job")), Granted)
    face.release("job", (key,))


# -- processes and connections ---------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("leave", ["with", "release"])
def test_a_child_does_not_give_back_what_its_parent_holds(
    leave: str, server: Server, store: RedisStore
) -> None:
    """Row 30: also where it leaves the block that it was forked in."""
    limiter = SyncLimiter(store)
    with limiter.hold(ONE) as lease:
        child = fork()
        if child:
            os.waitpid(child, 0)
            other = SyncLimiter(server.url)
            assert other.inspect(ONE).in_use == 1
            other.close()
        elif leave == "release":
            lease.release()
            os._exit(0)
    if not child:
        os._exit(0)
    assert limiter.inspect(ONE).in_use == 0


@pytest.mark.parametrize("world", [redis, redis.asyncio])
def test_clients_that_lead_elsewhere_are_refused(world: Any) -> None:
    """Else their settings would be taken for those of a server on this machine."""

    class Own(world.Connection):  # type: ignore[name-defined,misc]
        """What it does, nobody knows."""

    with pytest.raises(ConfigurationError, match="Own"):
        RedisStore(client=world.Redis(connection_pool=world.ConnectionPool(connection_class=Own)))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: RedisStore("redis://u:hunter2#x@h"),
        lambda: RedisStore("redis://u:hunter2/x@h:1"),
        lambda: RedisStore("redis://u:hunter2?x@h:1/a"),
        lambda: RedisStore(client="redis://u:hunter2@h"),  # type: ignore[arg-type]
    ],
)
def test_no_part_of_a_password_is_shown(attempt: Callable[[], object]) -> None:
    """Row 32: also where a URL is not one."""
    with pytest.raises(ConfigurationError) as caught:
        attempt()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    # (Whatever was raised before the attempt began says nothing of it.)
    context = None if caught.value.__suppress_context__ else caught.value.__context__
    assert "hunter2" not in repr(context)


class Refuses(redis.CredentialProvider):
    """Has no password, and raises something of its own."""

    asked = 0

    def get_credentials(self) -> tuple[str]:
        self.asked += 1
        raise LookupError("no password today")


async def test_a_credential_provider_may_raise_what_it_likes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers are told; nothing goes round in circles, and the keeper goes on."""
    refuses = Refuses()
    client = redis.Redis.from_url(server.url, credential_provider=refuses)
    store = RedisStore(client=client)
    for call in (Limiter(store).acquire(ONE), asyncio.to_thread(SyncLimiter(store).acquire, ONE)):
        with pytest.raises(StoreError, match="no password today") as caught:
            await asyncio.wait_for(call, 5.0)
        assert not isinstance(caught.value, StoreUnavailable)
        assert isinstance(caught.value.__cause__, LookupError)
    assert refuses.asked < 50
    await store.aclose()
    client.close()
    assert "Traceback" not in caplog.text or "LookupError" in caplog.text


async def test_closing_leaves_nobody_behind(server: Server) -> None:
    """Who holds is still renewed until it lets go; who waits asks again."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=0.6)
    store = RedisStore(server.url)
    limiter = Limiter(store)
    lease = await limiter.acquire(limit)
    waiter = asyncio.create_task(limiter.acquire(limit))
    await until(
        lambda: sum(live.waiting for live in store.session.tracker.entries.values()) == 1,
        "it waits",
    )
    await store.aclose()
    await asyncio.sleep(1.5)
    assert not lease.lost
    await lease.release()
    await (await asyncio.wait_for(waiter, 5.0)).release()
    await store.aclose()
    await until(lambda: store.session.renewer._thread is None, "the keeper ends")


def test_a_keeper_that_could_not_begin_begins_with_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = RedisStore(server.url)
    limiter = SyncLimiter(store)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(threading.Thread, "start", too_many)
        with pytest.raises(StoreError, match="no thread can begin"):
            limiter.try_acquire(ONE, {})
        store.close()  # says nothing of a thread that never was
    with limiter.hold(ONE, {}):  # and whoever keeps its lease is there again
        until_now(lambda: store.session.renewer.listening, "the keeper listens")
    store.close()


async def test_a_keeper_without_work_is_silent_while_the_server_is_away(
    own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to renew, so nothing to warn of."""
    caplog.set_level(logging.WARNING)
    store = RedisStore(own_server.url)
    async with Limiter(store).hold(ONE):
        await until(lambda: store.session.renewer.listening, "the keeper listens")
    own_server.kill()
    await until(lambda: not store.session.renewer.listening, "the keeper notices")
    await asyncio.sleep(0.5)
    await store.aclose()
    assert caplog.text == ""
    own_server.start()


def test_what_passes_by_itself_counts_as_away() -> None:
    """A server that is busy, or no master for a moment, is waited for."""
    from limiter_redis.protocol.errors import store_error

    for said in ("BUSY Redis is busy", "MASTERDOWN Link", "ERR x: -READONLY You can't write"):
        assert isinstance(store_error(redis.ResponseError(said), "here"), StoreUnavailable)
    for said in ("ERR no", "OOM command not allowed", "WRONGTYPE BUSY"):
        assert not isinstance(store_error(redis.ResponseError(said), "here"), StoreUnavailable)


def test_renewals_name_the_key_that_is_waited_for() -> None:
    """S9: a ticket may wait in the queue of another of its keys."""
    tracker = RequestTracker("limiter")
    waiting(tracker)
    tracker.renewed(tracker.entries["w"], "waiting other/key 1000000", time.monotonic())
    assert set(tracker.requests.looks) == {"other/key"}


def test_max_hold_goes_on_over_a_loss_of_data() -> None:
    """S10: who asks for its slot again has only what is left."""
    tracker = RequestTracker("limiter")
    somebody = Somebody()
    request = Request("h", (Demand(KEY, 1),), 10.0, max_hold=100.0, listener=somebody)
    sent_at = time.monotonic() - 5.0
    tracker.begin(request, sent_at)
    tracker.settle(request, "granted 7 10000000", sent_at)
    again = tracker.renewed(tracker.entries["h"], "gone", time.monotonic())
    assert again is not None
    assert again.max_hold == pytest.approx(95.0, abs=0.5)
    tracker.settle(again, "granted 7 10000000", time.monotonic())
    assert tracker.entries["h"].granted_at == sent_at
    tracker.entries["h"].expires_at = 0.0
    assert tracker.renewed(tracker.entries["h"], "gone", time.monotonic()) is None
    assert somebody.losses


def test_a_server_that_is_full_still_takes_releases() -> None:
    """Also of a slot that somebody waits for, and renewals: only newcomers are refused."""
    program = binary()
    assert program is not None
    server = Process(program, "--maxmemory-policy", "noeviction")
    here, there = RedisStore(server.url), RedisStore(server.url)
    try:
        ours, theirs = here.sync_face(), there.sync_face()
        listener = Somebody()
        request = Request("holder", (Demand("key", 1),), 20.0, listener=listener)
        assert isinstance(ours.acquire(request), Granted)
        waiter = Request("waiter", (Demand("key", 1),), 20.0)
        assert isinstance(theirs.acquire(waiter), Queued)
        server.admin.config_set("maxmemory", 1)
        assert not ours.renew(["holder"]).gone
        assert ours.release("holder", ("key",))
        with pytest.raises(StoreError):
            ours.acquire(Request("newcomer", (Demand("other", 1),), 20.0))
        server.admin.config_set("maxmemory", 0)
        assert isinstance(theirs.acquire(waiter), Granted)
        assert theirs.release("waiter", ("key",))
    finally:
        here.close()
        there.close()
        server.close()
