"""What is told of a lease's end, and of a key's limit: the same here and there."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_core.requests import Demand, Granted, Request
from limiter_core.testing import RecordingListener
from limiter_redis import RedisStore
from limiter_redis.protocol import commands

from ._fake_time import FAKED, ServerClock
from ._servers import Server
from ._tools import until_now


@pytest.mark.parametrize("more", [{}, {"max_hold": 100}, {"max_hold": 10}])
def test_a_lease_and_inspect_tell_the_same_end(store: RedisStore, more: dict[str, float]) -> None:
    limiter = SyncLimiter(store)
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=30, **more)
    with limiter.hold(limit) as lease:
        began = time.monotonic()
        (holder,) = limiter.inspect("one").holders
        spent = time.monotonic() - began
        assert holder.expires_in == pytest.approx(lease.expires_in(), abs=spent + 0.5)


def test_a_bounded_hold_counts_from_the_first_ask_though_its_reply_was_lost(server: Server) -> None:
    clock = ServerClock(server)
    with closing(RedisStore(server.url, script=FAKED)) as store:
        face, listener = store.sync_face(), RecordingListener()
        call = Request("call", (Demand("k", 1),), lease=30, max_hold=25, listener=listener)
        store.session.sync_transport().call([commands.acquire(call)])
        clock.advance(20)
        assert isinstance(face.acquire(call), Granted)
        store.session.tracker.messages_lost()
        until_now(lambda: listener.ends, "it is renewed")
        assert listener.ends[-1] < time.monotonic() + 6
        face.release("call")


def test_a_renewed_lease_and_inspect_tell_the_same_end(store: RedisStore) -> None:
    limiter = SyncLimiter(store)
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2)) as lease:
        first = lease.expires_in()
        left = [first]

        def is_renewed() -> bool:
            left.append(lease.expires_in())
            return left[-1] > left[-2]

        until_now(is_renewed, "it is renewed")
        (holder,) = limiter.inspect("one").holders
        assert holder.expires_in == pytest.approx(lease.expires_in(), abs=0.5)
        assert not lease.lost


def test_a_key_tells_the_highest_number_that_is_declared_by_those_who_use_it(
    store: RedisStore,
) -> None:
    limiter = SyncLimiter(store)
    by = LIMIT_BY.constant("one")
    two, five = ConcurrencyLimit(by, 2), ConcurrencyLimit(by, 5)
    assert limiter.inspect("one").limit == 0
    with limiter.hold(two):
        assert limiter.inspect("one").limit == 2
        with limiter.hold(five):
            assert (limiter.inspect("one").limit, limiter.inspect("one").declared) == (5, (2, 5))
    assert limiter.inspect("one").limit == 0
