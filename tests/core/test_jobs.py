"""Gates for job queues: admission with durable tickets, without a framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limiter_core import (
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    KeyDerivationError,
    LimitReached,
    StoreUnavailable,
    Superseded,
    WaitTimeout,
)
from limiter_core.jobs import Held, Job, error_of
from limiter_core.requests import Granted, Loss, Notice
from limiter_core.system_clock import system_clock
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._gates import KEY, FlakyStore, Gate, HastyStore, flaky, job
from ._tools import Thread


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(world: str) -> Iterator[Callable[..., Gate]]:
    gates: list[Gate] = []

    def make_gate(store: Any, name: str = "queue", **settings: Any) -> Gate:
        gates.append(Gate(world, store, name, **settings))
        return gates[-1]

    yield make_gate
    for gate in gates:
        gate.close()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def gate(make: Callable[..., Gate], store: MemoryStore) -> Gate:
    return make(store)


def test_who_frees_the_slot_wakes_the_next(gate: Gate) -> None:
    first = gate.take(job("first"))
    assert (first.id, first.keys) == ("first#1", (KEY,))
    waiting = gate.park(job("second"))
    assert (waiting.key, waiting.max_concurrent, waiting.in_use) == (KEY, 1, 1)
    assert gate.woken() == []
    gate.release(first)
    assert gate.woken() == ["second"]
    second = gate.take(job("second"))
    assert second.fencing_token > first.fencing_token
    gate.release(second)
    gate.release(second)
    assert gate.woken() == []


def test_arguments_by_name_will_do(gate: Gate, store: MemoryStore) -> None:
    lease = gate.take(Job("first", (ConcurrencyLimit("customer", 1),), {"customer": 7}))  # type: ignore[arg-type]
    assert store.inspect("customer=7").in_use == 1
    gate.release(lease)
    with pytest.raises(ConfigurationError, match="given by name"):
        Job("second", (), 7)  # type: ignore[arg-type]


def test_the_line_follows_the_enqueue_time(gate: Gate) -> None:
    """Whoever asks first: a burst is read in any order."""
    running = gate.take(job("running", order=1))
    for number in (5, 3, 4):
        gate.park(job(f"job-{number}", order=number * 1_000_000))
    gate.release(running)
    for number in (3, 4, 5):
        assert gate.woken() == [f"job-{number}"]
        gate.release(gate.take(job(f"job-{number}", order=number * 1_000_000)))


def test_a_second_look_sees_a_grant_that_crossed_the_parking(gate: Gate) -> None:
    first = gate.take(job("first"))
    waiting = gate.park(job("second"))
    assert not gate.handed_over(waiting)
    gate.release(first)
    assert gate.handed_over(waiting)
    lease = gate.take(job("second"))
    assert not gate.handed_over(waiting), "it runs already: there is nobody to wake"
    gate.release(lease)
    assert gate.handed_over(waiting), "it is gone: whoever parked it has to ask again"


def test_a_redelivery_of_a_running_job_is_held(gate: Gate) -> None:
    lease = gate.take(job("only"))
    assert isinstance(gate.admit(job("only")), Held)
    gate.release(lease)
    gate.release(gate.take(job("only")))


def test_an_ask_whose_answer_was_lost_is_no_redelivery(make: Callable[..., Gate]) -> None:
    """It took the slot, and its answer was lost: the next request for the job gets one."""
    store = FlakyStore()
    gate = make(flaky(store))
    store.lost_answers = 1
    with pytest.raises(StoreUnavailable):
        gate.admit(job("only"))
    lease = gate.take(job("only"))
    assert isinstance(gate.admit(job("only")), Held)
    gate.release(lease)
    assert list(store.sync_face().keys()) == []


def test_a_dropped_ticket_hands_its_slot_on(gate: Gate) -> None:
    first = gate.take(job("first"))
    for name in ("second", "third"):
        gate.park(job(name))
    gate.release(first)
    assert gate.woken() == ["second"]
    assert gate.drop("second#1")
    assert gate.woken() == ["third"]
    assert not gate.drop("second#1")


def test_what_nobody_claims_is_offered_again(gate: Gate, clock: FakeClock) -> None:
    lease = gate.take(job("first"))
    gate.park(job("second"))
    gate.release(lease)
    assert gate.woken() == ["second"]
    clock.advance(29)
    gate.sweep()
    assert gate.woken() == []
    clock.advance(2)
    gate.sweep()
    assert gate.woken() == ["second"]


def test_each_name_is_woken_by_its_own(make: Callable[..., Gate], store: MemoryStore) -> None:
    here, other = make(store, "here"), make(store, "other")
    lease = here.take(job("first"))
    other.park(job("second"))
    here.release(lease)
    assert other.woken() == ["second"]
    assert here.woken() == []


def test_gates_of_one_name_share_the_work(make: Callable[..., Gate], store: MemoryStore) -> None:
    """Two workers in one process; when one is closed the other still wakes."""
    first, second = make(store), make(store)
    lease = first.take(job("first"))
    second.park(job("second"))
    first.run(first.gate.aclose if hasattr(first.gate, "aclose") else first.gate.close)
    first.release(lease)
    assert second.woken() == ["second"]


def test_a_wake_that_always_fails_is_said_once_a_minute(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Notice) -> None:
        raise RuntimeError("no broker")

    gate.wake = fail
    for number in range(20):
        lease = gate.take(job(f"holds-{number}"))
        gate.park(job(f"waits-{number}"))
        gate.release(lease)
        gate.run(lambda number=number: gate.gate.drop(f"waits-{number}#1"))
    assert caplog.text.count("could not wake") == 1


def test_a_wake_that_fails_is_no_failure_of_the_release(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Notice) -> None:
        raise RuntimeError("no broker")

    lease = gate.take(job("first"))
    gate.park(job("second"))
    gate.wake = fail
    gate.release(lease)
    assert "could not wake second#1" in caplog.text


def test_a_lost_lease_is_told_to_the_adapter(gate: Gate, store: MemoryStore) -> None:
    lease = gate.take(job("first"))
    assert store.sync_face().evict(lease.id)
    assert gate.losses == [Loss.EVICTED]
    assert lease.lost
    gate.release(lease)


def test_a_loss_that_comes_before_the_lease_is_told_with_it(make: Callable[..., Gate]) -> None:
    gate = make(HastyStore())
    lease = gate.take(job("first"))
    assert gate.losses == [Loss.PREEMPTED]
    lease._call.lease_lost(Loss.EXPIRED)
    assert gate.losses == [Loss.PREEMPTED], "once"
    gate.release(lease)


def test_a_limit_may_ask_only_for_a_warning(
    gate: Gate, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    warned = ConcurrencyLimit("customer", max_concurrent=1, on_lost="warn")
    lease = gate.take(job("first", warned))
    assert store.sync_face().evict(lease.id)
    assert gate.losses == []
    assert "evicted" in caplog.text


def test_an_adapter_that_cannot_stop_a_body_breaks_nothing(
    gate: Gate, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Loss) -> None:
        raise RuntimeError("no such task")

    lease = gate.run(lambda: gate.gate.admit(job("first"), fail))
    assert store.sync_face().evict(lease.id)
    assert "could not stop a job" in caplog.text


def test_a_job_waits_no_longer_than_its_timeout(
    gate: Gate, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from its place in line: how often it asks makes no difference."""
    monkeypatch.setattr(system_clock, "time", lambda: 1_000.0)
    patient = ConcurrencyLimit("customer", max_concurrent=1, timeout=10)
    lease = gate.take(job("first"))
    assert gate.park(job("second", patient, order=995_000_000)).patience == pytest.approx(5)
    monkeypatch.setattr(system_clock, "time", lambda: 1_005.5)
    with pytest.raises(WaitTimeout) as error:
        gate.admit(job("second", patient, order=995_000_000))
    assert (error.value.key, error.value.max_concurrent) == (KEY, 1)
    assert store.sync_face().inspect(KEY).waiting == 0
    gate.release(lease)
    assert gate.woken() == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_job_whose_withdrawal_was_not_confirmed_waits_no_second_time(
    monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """It was put in line with no order of its own, so its next place would be a new one."""
    store = FlakyStore(clock=FakeClock(1_000.0))
    gate = Gate("async", flaky(store))
    monkeypatch.setattr(system_clock, "time", lambda: 1_000.0)
    patient = ConcurrencyLimit("customer", max_concurrent=1, timeout=10)
    lease = gate.take(job("first"))
    assert gate.park(job("second", patient)).patience == pytest.approx(10)
    monkeypatch.setattr(system_clock, "time", lambda: 1_010.5)
    store.lost_withdrawals, store.lost_requests = int(lost), int(not lost)
    with pytest.raises(WaitTimeout):
        gate.admit(job("second", patient))
    assert store.inspect(KEY).waiting == int(not lost)
    gate.release(lease)
    if not lost:  # it is offered the slot, to a job that is gone
        assert gate.woken() == ["second"]
        assert gate.drop("second#1")
    gate.close()


def test_a_refusal_is_an_error(gate: Gate) -> None:
    refusing = ConcurrencyLimit("customer", max_concurrent=1, on_conflict=ConflictResolution.CANCEL)
    gate.take(job("first"))
    with pytest.raises(LimitReached):
        gate.admit(job("second", refusing))
    with pytest.raises(KeyDerivationError):
        gate.admit(job("third", ConcurrencyLimit("no_such")))
    with pytest.raises(ConfigurationError):
        gate.admit(job("fourth", ()))


def test_a_superseded_job_is_noticed(gate: Gate) -> None:
    """Its queue cancels it, in its own terms."""
    latest = ConcurrencyLimit(
        "customer", max_concurrent=1, on_conflict=ConflictResolution.KEEP_LATEST
    )
    lease = gate.take(job("first", latest))
    gate.park(job("second", latest))
    gate.park(job("third", latest))
    [notice] = gate.notices
    assert notice.payload == b"second"
    assert isinstance(error_of(notice), Superseded)
    with pytest.raises(Superseded):
        gate.admit(job("second", latest))
    gate.notices.clear()
    gate.release(lease)
    [notice] = gate.notices
    assert error_of(notice) is None
    assert isinstance(notice.answer, Granted)


def test_an_outage_is_told_once(
    make: Callable[..., Gate], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "limiter")
    store = FlakyStore()
    gate = make(flaky(store))
    store.away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            gate.admit(job("only"))
    assert caplog.text.count("the store cannot be used") == 1
    store.away = False
    gate.release(gate.take(job("only")))
    assert caplog.text.count("the store is back") == 1


def test_jobs_may_run_without_a_store(make: Callable[..., Gate]) -> None:
    store = FlakyStore()
    gate = make(flaky(store), on_store_error="admit")
    store.away = True
    lease = gate.take(job("only"))
    assert lease.fencing_token == 0
    gate.release(lease)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_gate_needs_a_name(make: Callable[..., Gate], store: MemoryStore, name: str) -> None:
    with pytest.raises(ConfigurationError, match="needs a name"):
        make(store, name)


def test_a_notice_may_come_from_any_thread(gate: Gate, store: MemoryStore) -> None:
    lease = gate.take(job("first"))
    gate.park(job("second"))
    Thread(store.sync_face().release, lease.id).result()
    assert gate.woken() == ["second"]
