"""Events of jobs: one outcome per attempt, whichever worker it is delivered to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    KeyDerivationError,
    LimitReached,
    StoreUnavailable,
    WaitTimeout,
    events,
)
from limiter_core.jobs import Job, error_of
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._gates import KEY, ONE, FlakyStore, Gate, flaky, job
from ._tools import until_now

LATEST = ConcurrencyLimit("customer", 1, on_conflict="keep_latest")
CANCEL = ConcurrencyLimit("customer", 1, on_conflict="cancel")


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Gate]]:
    made: list[Gate] = []

    def make(store: object, name: str = "arq:shop", **settings: object) -> Gate:
        made.append(Gate(request.param, store, name, **settings))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def gate(make: Callable[..., Gate], store: MemoryStore) -> Gate:
    return make(store)


@pytest.fixture
def seen() -> Iterator[EventRecorder]:
    seen = EventRecorder()
    remove = limiter_core.observe(seen)
    yield seen
    remove()


def test_a_job_that_runs_at_once(gate: Gate, seen: EventRecorder) -> None:
    asking = Job("1", ONE, ArgumentView({"customer": 42}, "shop.bill"), b"1", None, "bill(1)")
    gate.release(gate.take(asking))
    granted = seen.one(events.Granted)
    assert (granted.id, granted.keys, granted.waited) == ("1", (KEY,), 0)
    assert (granted.adapter, granted.function, granted.label) == ("arq", "shop.bill", "bill(1)")
    seen.check_invariants(1)


def test_a_gate_names_its_adapter(make: Callable[..., Gate], store: MemoryStore) -> None:
    seen = EventRecorder()
    remove = limiter_core.observe(seen)
    gate = make(store, "shop", adapter="rq")
    gate.release(gate.take(job("1")))
    remove()
    assert seen.one(events.Granted).adapter == "rq"


def test_a_job_that_waits_says_for_how_long(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    """Whichever worker claims the slot: the store knows when its ticket came."""
    first = gate.take(job("1"))
    gate.park(job("2"))
    assert seen.one(events.Queued).key == KEY
    clock.advance(3)
    gate.release(first)
    clock.advance(2)
    lease = gate.take(job("2"))
    assert lease.waited_for == pytest.approx(5)
    assert seen.all(events.Granted)[1].waited == pytest.approx(5)
    gate.release(lease)
    seen.check_invariants(2)


def test_a_job_that_did_not_claim_its_slot_has_one_outcome(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    first = gate.take(job("1"))
    gate.park(job("2"))
    gate.release(first)
    clock.advance(31)
    gate.sweep()
    clock.advance(1)
    lease = gate.take(job("2"))
    assert lease.waited_for == pytest.approx(32)
    gate.release(lease)
    seen.check_invariants(2)


def test_a_second_delivery_sends_nothing(gate: Gate, seen: EventRecorder) -> None:
    lease = gate.take(job("1"))
    gate.admit(job("1"))
    gate.release(lease)
    seen.check_invariants(1)


def test_a_job_that_is_refused(gate: Gate, seen: EventRecorder) -> None:
    lease = gate.take(job("1"))
    with pytest.raises(LimitReached):
        gate.admit(job("2", CANCEL))
    gate.release(lease)
    assert seen.one(events.Refused).reason == "full"
    seen.check_invariants(2)


def test_a_job_whose_timeout_is_over(gate: Gate, seen: EventRecorder, clock: FakeClock) -> None:
    lease = gate.take(job("1"))
    limit = ConcurrencyLimit("customer", 1, timeout=0)
    with pytest.raises(WaitTimeout):
        gate.admit(job("2", limit, order=1))
    gate.release(lease)
    assert seen.one(events.Refused).reason == "timeout"
    seen.check_invariants(2)


def test_a_job_that_is_superseded_is_refused_when_it_asks_again(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    lease = gate.take(job("1", LATEST))
    gate.park(job("2", LATEST))
    clock.advance(1)
    gate.park(job("3", LATEST))
    with pytest.raises(limiter_core.Superseded):
        gate.admit(job("2", LATEST))
    gate.drop("3#1")
    gate.release(lease)
    assert seen.one(events.Refused).reason == "superseded"
    seen.check_invariants(3)


def test_an_adapter_reports_a_refusal_that_it_learnt_from_a_notice(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    lease = gate.take(job("1", LATEST))
    gate.park(job("2", LATEST))
    clock.advance(1)
    gate.park(job("3", LATEST))
    (notice,) = gate.notices
    gate.gate.report_removed(notice.id, error_of(notice))
    gate.drop("3#1")
    gate.release(lease)
    refused = seen.one(events.Refused)
    assert (refused.id, refused.keys, refused.reason) == ("2#1", (KEY,), "superseded")
    assert refused.waited == pytest.approx(1)
    seen.check_invariants(3)


def test_a_notice_names_the_limits_of_a_job_that_another_worker_parked(
    make: Callable[..., Gate], store: MemoryStore, seen: EventRecorder, clock: FakeClock
) -> None:
    limits = [ConcurrencyLimit("customer", on_conflict="keep_latest", name="billing"), ONE]
    limits[1] = ConcurrencyLimit(LIMIT_BY.constant("crm"), 5)
    gate, other = make(store), make(store)
    lease = gate.take(job("1", limits))
    gate.park(job("2", limits))
    gate.run(gate.gate.aclose if gate._runner is not None else gate.gate.close)
    clock.advance(1)
    other.park(job("3", limits))
    (notice,) = other.notices
    error = error_of(notice)
    assert str(error) == "a newer call on 'customer=42' (billing) took the place of this one"
    other.gate.report_removed(notice.id, error)
    refused = seen.one(events.Refused)
    assert (refused.keys, refused.names) == ((KEY, "crm"), ("billing", "crm"))
    other.drop("3#1")
    gate.release(lease)
    seen.check_invariants(3)


def test_a_job_that_is_dropped_was_cancelled(gate: Gate, seen: EventRecorder) -> None:
    lease = gate.take(job("1"))
    gate.park(job("2"))
    assert gate.drop("2#1")
    assert not gate.drop("2#1")
    gate.release(lease)
    assert seen.one(events.Cancelled).id == "2#1"
    seen.check_invariants(2)


def test_a_job_that_is_dropped_once_more_after_an_outage_has_the_name_of_its_limit(
    make: Callable[..., Gate], seen: EventRecorder
) -> None:
    store = FlakyStore()
    gate = make(flaky(store))
    lease = gate.take(job("1"))
    gate.park(job("2"))
    other = make(flaky(store))
    other.gate._state.remember("2#1", ((KEY, "customer"),))  # as a notice has it do
    store.away = True
    with pytest.raises(StoreUnavailable):
        other.drop("2#1")
    store.away = False
    assert other.drop("2#1")
    gate.release(lease)
    cancelled = seen.one(events.Cancelled)
    assert (cancelled.keys, cancelled.names) == ((KEY,), ("customer",))


def test_another_worker_may_drop_it(
    make: Callable[..., Gate], store: MemoryStore, seen: EventRecorder
) -> None:
    gate, other = make(store), make(store)
    lease = gate.take(job("1"))
    gate.park(job("2"))
    assert other.drop("2#1", (KEY,))
    gate.release(lease)
    cancelled = seen.one(events.Cancelled)
    assert (cancelled.keys, cancelled.names) == ((KEY,), ("customer",))
    seen.check_invariants(2)


def test_a_job_that_cannot_have_a_key_has_failed(gate: Gate, seen: EventRecorder) -> None:
    with pytest.raises(KeyDerivationError):
        gate.admit(job("1", ConcurrencyLimit("region")))
    assert isinstance(seen.one(events.Failed).error, KeyDerivationError)
    seen.check_invariants(1)


def test_an_outage_is_no_outcome(make: Callable[..., Gate], seen: EventRecorder) -> None:
    """The job is kept, and asks again."""
    store = FlakyStore()
    gate = make(flaky(store))
    store.away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            gate.admit(job("1"))
    store.away = False
    gate.release(gate.take(job("1")))
    assert seen.kinds == ["StoreFailed", "StoreRecovered", "Granted", "Released"]
    seen.check_invariants(1)


def test_a_grant_that_is_given_back_unused_sends_nothing(gate: Gate, seen: EventRecorder) -> None:
    """Its job is delivered again, under the same ticket."""
    gate.release(gate.run(lambda: gate.gate.admit(job("1"), confirmed=False)))
    first = gate.take(job("2"))
    place = gate.run(lambda: gate.gate.admit(job("1"), confirmed=False))
    gate.take_back(place)
    assert gate.gate.store.inspect(KEY).waiting == 0
    assert seen.kinds == ["Granted"]
    place = gate.run(lambda: gate.gate.admit(job("1"), confirmed=False))
    gate.gate.confirm(place)
    gate.release(first)
    lease = gate.run(lambda: gate.gate.admit(job("1"), confirmed=False))
    gate.gate.confirm(lease)
    gate.gate.confirm(lease)
    gate.release(lease)
    assert seen.kinds == ["Granted", "Queued", "Released", "Granted", "Released"]
    seen.check_invariants(2)


def test_a_refusal_that_a_notice_and_an_answer_bring_is_one_outcome(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    """The store keeps it for a while, for a delivery of the job that asks again."""
    lease = gate.take(job("1", LATEST))
    gate.park(job("2", LATEST))
    clock.advance(1)
    gate.park(job("3", LATEST))
    (notice,) = gate.notices
    gate.gate.report_removed(notice.id, error_of(notice))
    with pytest.raises(limiter_core.Superseded):
        gate.admit(job("2", LATEST))
    # One that comes later than its successor is superseded at once; there is a notice all the same.
    with pytest.raises(limiter_core.Superseded):
        gate.admit(job("4", LATEST, order=1))
    gate.gate.report_removed(gate.notices[-1].id, error_of(gate.notices[-1]))
    gate.drop("3#1")
    gate.release(lease)
    assert [event.id for event in seen.all(events.Refused)] == ["2#1", "4#1"]
    seen.check_invariants(4)


def test_a_job_that_was_refused_waited_until_then(
    gate: Gate, seen: EventRecorder, clock: FakeClock
) -> None:
    lease = gate.take(job("1", LATEST))
    gate.park(job("2", LATEST))
    clock.advance(3)
    gate.park(job("3", LATEST))
    with pytest.raises(limiter_core.Superseded):
        gate.admit(job("2", LATEST))
    gate.drop("3#1")
    gate.release(lease)
    assert seen.one(events.Refused).waited == pytest.approx(3)


def test_a_job_that_ran_without_the_store_is_not_cancelled_besides(
    make: Callable[..., Gate], seen: EventRecorder
) -> None:
    """Its request was carried out, and the answer lost: a ticket of it waits."""
    store = FlakyStore()
    gate = make(flaky(store), on_store_error="admit")
    lease = gate.take(job("1"))
    store.lost_answers = 1
    gate.release(gate.admit(job("2")))
    assert gate.drop("2#1")
    gate.release(lease)
    assert seen.all(events.Cancelled) == []
    seen.check_invariants(2)


def test_a_job_that_runs_without_a_slot(make: Callable[..., Gate], seen: EventRecorder) -> None:
    store = FlakyStore()
    gate = make(flaky(store), on_store_error="admit")
    store.away = True
    gate.release(gate.admit(job("1")))
    store.away = False
    assert seen.kinds == ["StoreFailed", "AdmittedWithoutStore"]
    seen.check_invariants(1)


def test_a_job_that_loses_its_slot(gate: Gate, seen: EventRecorder, store: MemoryStore) -> None:
    lease = gate.take(job("1"))
    store.evict(lease.id)
    if gate._runner is not None:
        gate.sweep()  # its event loop runs
    until_now(lambda: bool(seen.all(events.Lost)), "the loss")
    seen.check_invariants(1)
