"""Keys that the server threw away, that hold strange values, or are very large."""

from __future__ import annotations

import asyncio
import time

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    StoreError,
)
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.session.tracker import RequestTracker

from ._fake_time import FAKED, ServerClock
from ._listeners import NotingListener
from ._servers import Process, Server, binary

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=60)
KEY = "one"


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
    """S10: a process that notices it late does not take it for a loss of data."""
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
    """Cluster: all that a step touches is under one hash tag; but for what all keys share."""
    face = store.sync_face()
    key = f"jobs/{KEY}"
    face.acquire(Request("holder", (Demand(key, 1),)))
    face.acquire(Request("job", (Demand(key, 1),), payload=b"job", claim=0.05))
    face.release("holder", (key,))
    names = set(server.admin.scan_iter("{limiter*")) - {"{limiter}:scopes", "{limiter}:layout"}
    assert {name.partition("}")[0] for name in names} == {"{limiter:jobs"}
    assert isinstance(face.acquire(Request("job", (Demand(key, 1),), payload=b"job")), Granted)
    face.release("job", (key,))


def test_max_hold_goes_on_over_a_loss_of_data() -> None:
    """S10: who asks for its slot again has only what is left."""
    tracker = RequestTracker("limiter")
    somebody = NotingListener()
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
        listener = NotingListener()
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
