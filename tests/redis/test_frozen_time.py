"""A user's test freezes time (freezegun): leases live on, and waits end, by the system's clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from freezegun import freeze_time

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Lease,
    Limiter,
    SyncLease,
    SyncLimiter,
    WaitTimeout,
)
from limiter_memory import MemoryStore

from ._servers import Server

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=0.6)
TURNS = 4_000
"""Of 5 ms each: `time.monotonic` stands still here, so waits are counted in turns."""


@pytest.fixture(params=["1999-12-31", "2100-01-01"])
def frozen(request: pytest.FixtureRequest) -> Iterator[None]:
    with freeze_time(request.param):
        yield


def renewals(lease: Lease | SyncLease, count: int) -> None:
    """Wait until the lease was renewed so often."""
    turn = threading.Event()
    last = lease.expires_in()
    for _ in range(TURNS):
        turn.wait(0.005)
        left = lease.expires_in()
        count -= left > last
        last = left
        if count == 0:
            return
    raise AssertionError("the lease was not renewed")


def test_a_lease_that_was_taken_before_is_not_lost(server: Server) -> None:
    # A long one: to freeze time takes freezegun a while, in which nothing else runs.
    long = ConcurrencyLimit(LIMIT_BY.constant("one"))
    with SyncLimiter(server.url) as limiter, limiter.hold(long) as lease:
        for date in ("1999-12-31", "2100-01-01"):
            with freeze_time(date):
                assert not lease.lost
                assert 0 < lease.expires_in() < 30
        assert not lease.lost


@pytest.mark.usefixtures("frozen")
def test_a_lease_that_is_taken_meanwhile_is_renewed(server: Server) -> None:
    with SyncLimiter(server.url) as limiter, limiter.hold(ONE) as lease:
        renewals(lease, 4)  # a lease is renewed every third of it
        assert not lease.lost
        assert limiter.inspect(ONE).in_use == 1


@pytest.mark.usefixtures("frozen")
async def test_a_lease_in_an_event_loop_is_renewed(server: Server) -> None:
    async with Limiter(server.url) as limiter:
        async with limiter.hold(ONE) as lease:
            renewals(lease, 4)  # in a thread of its own: the loop need not run
            assert not lease.lost
        assert (await limiter.inspect(ONE)).in_use == 0


@pytest.mark.usefixtures("frozen")
def test_a_wait_of_a_thread_ends(server: Server) -> None:
    for store in (server.url, MemoryStore()):
        with SyncLimiter(store) as limiter, limiter.hold(ONE), pytest.raises(WaitTimeout):
            SyncLimiter(store).acquire(ONE, timeout=1.0)
