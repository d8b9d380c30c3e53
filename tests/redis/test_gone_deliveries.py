"""Deliveries of a job that are gone: they take nothing, and what they give back is their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from limiter_core._asyncio_calls import AsyncioCall
from limiter_core._job_gate import _JobCall
from limiter_core.limits import ConcurrencyLimit, ConflictResolution
from limiter_core.requests import Demand, Granted, Queued, Replaced, Request
from limiter_core.system_clock import system_clock as time
from limiter_core.testing import RecordingListener
from limiter_memory import MemoryStore
from limiter_redis.protocol import commands, replies
from limiter_redis.store import RedisStore

from ._servers import Server
from ._tools import until_now

LEASE = 30.0


def delivery(claimant: str) -> Request:
    demands = (Demand("k", 1),)
    listener = RecordingListener()
    return Request("job", demands, LEASE, payload=b"x", claimant=claimant, listener=listener)


def is_gone(store: RedisStore, claimant: str) -> None:
    store.session.sync_transport().call(
        [commands.release_claim("job", "k", claimant, for_good=True)]
    )


def evicted(store: RedisStore) -> None:
    store.session.sync_transport().call(
        [commands.acquire(delivery("a")), commands.evict("job", "k")]
    )


def handed_over(store: RedisStore) -> None:
    other = commands.acquire(Request("other", (Demand("k", 1),), LEASE))
    store.session.sync_transport().call([other, commands.acquire(delivery("a"))])
    is_gone(store, "b")
    store.session.sync_transport().call([commands.release("other", "k")])


BEFORE: dict[str, Callable[[RedisStore], object]] = {
    "nothing": lambda _: None,
    "another delivery is gone": lambda store: is_gone(store, "a"),
    "an eviction": evicted,
    "a ticket that was handed the slot": handed_over,
}


@pytest.mark.parametrize("before", BEFORE)
def test_a_late_request_of_a_delivery_that_is_gone_takes_nothing(
    server: Server, before: str
) -> None:
    store = RedisStore(server.url)
    BEFORE[before](store)
    is_gone(store, "b")
    line = store.session.sync_transport().call([commands.acquire(delivery("b"))])[0]
    assert isinstance(replies.parse_answer(line.split(" ")), Replaced)
    assert isinstance(store.sync_face().acquire(delivery("c")), Granted)
    store.sync_face().release_claim("job", ["k"], "c")
    store.close()


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_what_a_delivery_abandons_is_not_the_lease_of_the_next_one(
    server: Server, kind: str
) -> None:
    store: Any = MemoryStore() if kind == "memory" else RedisStore(server.url)
    face = store.sync_face()
    second = delivery("second")
    assert isinstance(face.acquire(second), Granted)
    face.abandon("job", ["k"], "first")
    if kind == "redis":
        store.close()  # it waits for what is released in the background
    (holder,) = face.inspect("k").holders
    assert holder.id == "job"
    assert face.release_claim("job", ["k"], "second")
    store.close()


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_lease_that_was_collected_is_not_that_of_the_next_delivery(
    server: Server, kind: str
) -> None:
    store: Any = MemoryStore() if kind == "memory" else RedisStore(server.url)
    face = store.sync_face()
    second = delivery("second")
    assert isinstance(face.acquire(second), Granted)
    face.let_expire("job", "first")
    if kind == "redis":
        store.session.tracker.messages_lost()
        listener = cast("RecordingListener", second.listener)
        until_now(lambda: listener.ends, "it is renewed")
    else:
        assert face.inspect("k").holders[0].expires_in is None
        face.let_expire("job", "second")
        assert face.inspect("k").holders[0].expires_in is not None
    assert face.release_claim("job", ["k"], "second")
    store.close()


def test_a_call_that_is_gone_takes_nothing_though_its_release_comes_once_more(
    server: Server,
) -> None:
    store = RedisStore(server.url)
    face = store.sync_face()
    call = Request("call", (Demand("k", 1),), LEASE)
    store.session.sync_transport().call([commands.release("call", "k", for_good=True)])
    assert not face.release("call", ["k"])
    assert isinstance(face.acquire(call), Replaced)
    store.close()


def test_what_was_superseded_may_come_anew_once_its_caller_has_let_go(server: Server) -> None:
    store = RedisStore(server.url)
    face = store.sync_face()
    face.acquire(Request("holder", (Demand("k", 1),), LEASE))
    latest = Demand("k", 1, on_conflict=ConflictResolution.KEEP_LATEST)
    call = Request("call", (latest,), LEASE)
    assert isinstance(face.acquire(call), Queued)
    assert isinstance(face.acquire(call._replace(id="newer")), Queued)
    assert isinstance(face.acquire(call), Replaced)
    assert not face.release("call", ["k"])
    assert isinstance(face.acquire(call), Queued)
    store.close()


def test_a_call_has_no_deliveries_that_could_lose_its_lease_to_each_other(server: Server) -> None:
    store = RedisStore(server.url)
    call = delivery("a")._replace(payload=None)
    for request in (call, call._replace(claimant="b")):
        assert isinstance(store.sync_face().acquire(request), Granted)
    listener = cast("RecordingListener", call.listener)
    renewed = len(listener.ends)
    store.session.tracker.messages_lost()
    until_now(lambda: listener.losses or len(listener.ends) > renewed, "the lease is renewed")
    assert not listener.losses
    store.sync_face().release("job")
    store.close()


@pytest.mark.parametrize("kind", [AsyncioCall, _JobCall])
def test_a_call_of_a_closed_loop_says_that_it_is_gone_also_in_its_thread(kind: Any) -> None:
    loop = asyncio.new_event_loop()
    call = kind(None, ConcurrencyLimit("k", max_concurrent=1).terms, time.monotonic, loop)
    assert call.look_again()
    loop.close()
    assert not call.look_again()
