"""An observer that raises, blocks or calls the limiter: no lease is lost for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter, events
from limiter_core.events import Event
from limiter_redis import RedisStore

from ._tools import until, until_now

MANY = ConcurrencyLimit(LIMIT_BY.constant("many"), max_concurrent=10, lease=1.0)
OTHER = ConcurrencyLimit(LIMIT_BY.constant("other"), max_concurrent=1)


def raises(_: Event) -> None:
    raise ZeroDivisionError


def blocks(_: Event) -> None:
    time.sleep(0.1)  # on purpose: it is what must not hold up the renewals


def calling(store: RedisStore) -> Callable[[Event], None]:
    own = SyncLimiter(store)

    def calls(_: Event) -> None:
        with own.hold(OTHER, timeout=5):
            pass

    return calls


@pytest.fixture(params=["raises", "blocks", "calls"])
def bad(request: pytest.FixtureRequest, store: RedisStore) -> Callable[[Event], None]:
    return {"raises": raises, "blocks": blocks, "calls": calling(store)}[request.param]


def test_leases_of_threads_live_on(store: RedisStore, bad: Callable[[Event], None]) -> None:
    lost: list[Event] = []

    def observer(event: Event) -> None:
        if isinstance(event, events.Lost):
            lost.append(event)
        bad(event)

    limiter = SyncLimiter(store, observe=observer)
    leases = [limiter.acquire(MANY) for _ in range(10)]
    for lease in leases[:8]:
        assert limiter.evict(lease.id)
    begun = time.monotonic()
    until_now(lambda: len(lost) == 8, "eight losses")
    until_now(lambda: time.monotonic() > begun + 1.5, "a lease time has passed")
    assert not any(lease.lost for lease in leases[8:])
    for lease in leases:
        lease.release()
    assert len(lost) == 8
    assert store.sync_face().inspect("many").in_use == 0


async def test_leases_of_an_event_loop_live_on(
    astore: RedisStore, store: RedisStore, bad: Callable[[Event], None]
) -> None:
    lost: list[Event] = []

    def observer(event: Event) -> None:
        if isinstance(event, events.Lost):
            lost.append(event)
        bad(event)

    limiter = Limiter(astore, observe=observer)
    leases = [await limiter.acquire(MANY) for _ in range(10)]
    for lease in leases[:8]:
        assert await limiter.evict(lease.id)
    begun = time.monotonic()
    await until(lambda: len(lost) == 8, "eight losses")
    await until(lambda: time.monotonic() > begun + 1.5, "a lease time has passed")
    assert not any(lease.lost for lease in leases[8:])
    for lease in leases:
        await lease.release()
    assert len(lost) == 8
    assert store.sync_face().inspect("many").in_use == 0
