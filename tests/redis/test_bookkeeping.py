"""What is written down for a request on several keys, and that none of it stays behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_core.store import SyncStore
from limiter_redis import RedisStore

from ._fake_time import FAKED, ServerClock
from ._servers import Server

A, B = "books/a", "books/b"


@pytest.fixture
def face(server: Server, clock: ServerClock) -> Iterator[SyncStore]:
    store = RedisStore(server.url, script=FAKED)
    yield store.sync_face()
    store.close()


@pytest.mark.parametrize("by", [A, B], ids=["its first key", "another of its keys"])
def test_a_slot_not_taken_up_is_given_back_by(by: str, face: SyncStore, server: Server) -> None:
    """S5, S14, S15: the request that was kept until then goes with it."""
    face.set_limit(A, 1)  # so that the key's state stays
    face.acquire(Request("holder", (Demand(A, 1),)))
    waiter = Request("waiter", (Demand(A, 1), Demand(B, 1)))
    assert isinstance(face.acquire(waiter), Queued)
    face.release("holder", (A,))
    assert face.inspect(B).in_use == 1, "handed over"
    assert face.release("waiter", (by,))
    fields = server.admin.hkeys("{limiter:books}:state:a")
    assert not [name for name in fields if name[:2] in ("t:", "h:")]
    face.reset_limit(A)
    assert list(face.keys()) == []


def test_who_still_waits_is_not_evicted(face: SyncStore, clock: ServerClock) -> None:
    """S6, S12: also where the eviction comes across a slot that has just become free."""
    face.acquire(Request("holder", (Demand(A, 1),), lease=10))
    face.acquire(Request("waiter", (Demand(A, 1),), lease=60))
    clock.advance(11)
    assert not face.evict("waiter")
    assert isinstance(face.acquire(Request("waiter", (Demand(A, 1),))), Granted)
    assert not face.evict("holder")
    face.release("waiter")


def test_a_ticket_is_shown_on_the_key_where_it_waits(face: SyncStore) -> None:
    """S9: also where that is not the first of its keys."""
    face.acquire(Request("holder", (Demand(B, 1),)))
    face.acquire(Request("waiter", (Demand(A, 1), Demand(B, 1)), label="who"))
    assert [(each.id, each.label) for each in face.inspect(B).waiters] == [("waiter", "who")]
    assert face.inspect(A).waiting == 0
    face.release("holder")
    assert isinstance(face.acquire(Request("waiter", (Demand(A, 1), Demand(B, 1)))), Granted)
    face.release("waiter")


def test_a_ticket_on_another_key_ends_when_it_is_not_renewed(
    face: SyncStore, clock: ServerClock
) -> None:
    """S2, S10: a renewal that comes too late does not bring it back, whatever key it names."""
    face.acquire(Request("holder", (Demand(B, 1),), lease=600))
    face.acquire(Request("waiter", (Demand(A, 1), Demand(B, 1)), lease=10))
    clock.advance(11)
    assert set(face.renew(["waiter"]).gone) == {"waiter"}
    assert face.inspect(B).waiting == 0
    face.release("holder")


def test_moving_to_another_queue_is_no_renewal(face: SyncStore, clock: ServerClock) -> None:
    """S2, S9: a ticket ends when it was to end, wherever it waits by then."""
    face.acquire(Request("on-a", (Demand(A, 1),), lease=600))
    face.acquire(Request("waiter", (Demand(A, 1), Demand(B, 1)), lease=10))
    face.acquire(Request("on-b", (Demand(B, 1),), lease=600))
    clock.advance(7)
    face.release("on-a")
    assert [each.id for each in face.inspect(B).waiters] == ["waiter"]
    clock.advance(4)
    assert face.inspect(B).waiting == 0
    face.release("on-b")


def test_asking_and_giving_up_leave_nothing(face: SyncStore, server: Server) -> None:
    """S14; row 35."""
    for number in range(50):
        demands = (Demand(A, 1, group=str(number % 3)), Demand(B, 2))
        face.acquire(Request(f"r{number}", demands))
    for number in reversed(range(50)):
        face.release(f"r{number}", (A, B))
    assert [name for name in server.admin.scan_iter() if name.startswith("{limiter")] == []


def test_members_with_short_leases_do_not_shorten_the_life_of_others(
    face: SyncStore, server: Server
) -> None:
    """S14; row 35: the key's expiry lies behind its last member."""
    face.acquire(Request("long", (Demand(A, 3),), lease=3600))
    for number in range(10):
        face.acquire(Request(f"short-{number}", (Demand(A, 3),), lease=0.5))
    for name in server.admin.scan_iter("{limiter:books}*"):
        assert server.admin.ttl(name) > 3600
    for name in ("long", *(f"short-{number}" for number in range(10))):
        face.release(name, (A,))
