"""What is written down for a request on several keys, and that none of it stays behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_core.store import SyncStore
from limiter_core.tracing import labelled
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


def test_a_waiter_is_not_evicted(face: SyncStore, clock: ServerClock) -> None:
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


def test_a_record_without_a_name_is_read_and_renewed(face: SyncStore, server: Server) -> None:
    """S20: a limit without a name, or one of a release that had no names, has a word less."""
    face.acquire(Request("holder", (Demand("books", 1),)))
    record: str = server.admin.get("{limiter:books}:state")
    assert len(record.split()) == 11
    assert not face.renew(["holder"]).gone
    assert face.inspect("books").name == ""
    named = Request("waiter", (Demand("books", 1, name="billing"),))
    assert isinstance(face.acquire(named), Queued)
    assert face.inspect("books").name == "billing"
    assert server.admin.hget("{limiter:books}:state", "name") == "billing"
    assert face.release("holder")
    assert isinstance(face.acquire(named), Granted)
    assert face.release("waiter")
    assert server.admin.keys("*books*") == []


def test_a_record_with_a_name_begins_as_one_without(face: SyncStore, server: Server) -> None:
    """S20: the name is behind all that a release without names reads, and is kept by renewals."""
    face.acquire(Request("holder", (Demand("books", 1, name="the crm"),), label="web-1"))
    assert face.renew(["holder"]).gone == {}
    words = server.admin.get("{limiter:books}:state").split()
    assert (words[0], words[10:]) == ("holder", ["web-1", "the%20crm"])


def last_waiters(face: SyncStore, label: str) -> list[str]:
    """Return the blockers of two calls behind 127 others that end before the holders."""
    for number in range(127):
        face.acquire(Request(f"waiter-{number}", (Demand(A, 2, cost=2),), lease=30))
    answers = [
        face.acquire(Request(f"last-{number}", (Demand(A, 2, cost=2),), lease=30, label=label))
        for number in range(2)
    ]
    assert all(isinstance(answer, Queued) for answer in answers)
    return [answer.blocker for answer in answers if isinstance(answer, Queued)]


def test_the_oldest_holder_is_found_among_many_waiters(face: SyncStore) -> None:
    """S21: it is noted when it takes its slot alone."""
    traced = labelled("web-1", "trace")
    face.acquire(Request("holder", (Demand(A, 2),), lease=60, label=traced))
    face.acquire(Request("other", (Demand(A, 2),), lease=60, label=labelled("web-2", "other")))
    assert last_waiters(face, traced) == [traced, traced]


def test_an_id_that_is_used_again_is_not_the_oldest(face: SyncStore) -> None:
    """S21: a job's attempt has the id of the one before, which held its slot alone."""
    face.acquire(Request("job", (Demand(A, 2),), lease=60, label=labelled("web-1", "job")))
    face.acquire(Request("older", (Demand(A, 2),), lease=60, label=labelled("web-2", "older")))
    face.release("job")
    face.acquire(Request("job", (Demand(A, 2),), lease=60, label=labelled("web-1", "again")))
    for number in range(2):  # the second goes the short way
        waiter = Request(f"waiter-{number}", (Demand(A, 2),), lease=60, label=labelled("", "wait"))
        answer = face.acquire(waiter)
        assert isinstance(answer, Queued)
        assert answer.blocker == labelled("web-2", "older")


def test_a_step_looks_at_so_many_members_for_a_blocker(face: SyncStore) -> None:
    """S16, S21: where more waiters end before the holders, and none is noted, there is none."""
    traced = labelled("web-1", "trace")
    face.acquire(Request("gone", (Demand(A, 2),), lease=60, label=labelled("web-2", "gone")))
    face.acquire(Request("holder", (Demand(A, 2),), lease=60, label=traced))
    face.release("gone")
    assert last_waiters(face, traced) == ["", ""]
    face.release("waiter-0")
    face.release("waiter-1")
    looked = face.acquire(Request("last-0", (Demand(A, 2, cost=2),), lease=30, label=traced))
    assert isinstance(looked, Queued)
    assert looked.blocker == traced


def test_asking_and_giving_up_leave_nothing(face: SyncStore, server: Server) -> None:
    """S14; row 35."""
    for number in range(50):
        demands = (Demand(A, 1, group=str(number % 3)), Demand(B, 2))
        face.acquire(Request(f"r{number}", demands))
    for number in reversed(range(50)):
        face.release(f"r{number}", (A, B))
    assert [*server.admin.scan_iter("{limiter*")] == ["{limiter}:layout"]


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
