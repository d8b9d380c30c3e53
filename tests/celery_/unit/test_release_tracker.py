"""Each slot is given back once, on every outcome; and what did not start is not forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from celery.concurrency import prefork

from limiter_celery._delivery import job_of
from limiter_core.jobs import Waiting
from limiter_core.lease import SyncLease
from limiter_core.requests import Loss
from tests.core._tools import until_now

from ._parts import Parts

KEY = "user=eve"


def admitted(parts: Parts, request: Any) -> SyncLease:
    """Return the slot of a request; it is stopped when that is lost."""
    job = job_of(request)
    assert job is not None
    lease = parts.gate.admit(job, parts.releases.on_lost(request))
    assert isinstance(lease, SyncLease)
    return lease


@pytest.fixture
def running(parts: Parts) -> Any:
    """A request whose body has started."""
    request = parts.receive("one")
    parts.releases.track(request, admitted(parts, request))
    request.delivery.submit()
    parts.releases.on_start(request)
    return request


def test_a_slot_is_given_back_once_and_the_next_is_named(parts: Parts, running: Any) -> None:
    waiting = [parts.receive("one") for _ in range(2)]
    for each in waiting:
        job = job_of(each)
        assert job is not None
        assert isinstance(parts.gate.admit(job), Waiting)
    assert parts.releases.has_any()
    parts.releases.on_end(running)
    parts.releases.on_end(running)
    assert [each.id for each in parts.notices] == [waiting[0].delivery.ticket]
    assert parts.of_own_steps == [True], "no other worker is notified of it"
    assert parts.tickets.inspect(KEY).waiting == 1
    assert not parts.releases.has_any()


def test_the_body_finds_the_fencing_token(running: Any) -> None:
    token = running.delivery.lease.fencing_token
    assert running.request_dict["limiter_fencing_token"] == token > 0


def test_a_slot_that_comes_after_the_end_is_given_back(parts: Parts) -> None:
    """It was revoked while it was asked for."""
    request = parts.receive("one")
    lease = admitted(parts, request)
    parts.releases.on_end(request)
    parts.releases.track(request, lease)
    assert parts.tickets.inspect(KEY).in_use == 0
    assert not parts.releases.has_any()


def test_an_end_in_the_main_loop_waits_for_it(parts: Parts, running: Any) -> None:
    parts.releases.on_end(running, in_main_loop=True)
    assert parts.tickets.inspect(KEY).in_use == 1, "the child may still run"
    parts.main_loop.run_pending()
    assert parts.tickets.inspect(KEY).in_use == 0


def test_a_request_that_is_gone_without_an_end_gives_its_slot_back(parts: Parts) -> None:
    from celery.worker import state

    request = parts.receive("one")
    parts.releases.track(request, admitted(parts, request))
    state.task_ready(request)
    del request
    parts.finish()
    assert parts.tickets.inspect(KEY).in_use == 0
    assert not parts.releases.has_any()


def test_a_new_connection_gives_back_what_did_not_start(parts: Parts, running: Any) -> None:
    other = parts.receive("one", "adam")
    parts.releases.track(other, admitted(parts, other))
    parts.worker.connection += 1
    parts.releases.on_new_connection()
    parts.finish()
    assert parts.tickets.inspect("user=adam").in_use == 0
    assert other.delivery.handed_over
    assert parts.tickets.inspect(KEY).in_use == 1, "its body runs"


def test_at_the_end_of_the_process_all_slots_are_given_back(parts: Parts, running: Any) -> None:
    parts.releases.release_all()
    assert parts.tickets.inspect(KEY).in_use == 0
    parts.releases.on_end(running)


@pytest.mark.parametrize(("name", "is_marked"), [("one", True), ("late", False)])
def test_a_copy_is_kept_from_running_twice(parts: Parts, name: str, is_marked: bool) -> None:
    """As soon as its body starts; of one that is acknowledged late, when it has ended."""
    request = parts.receive(name)
    request.delivery.redelivered = True
    parts.releases.track(request, admitted(parts, request))
    parts.releases.on_start(request)
    assert (parts.markers.age(request.delivery.ticket) is not None) is is_marked
    request.acknowledge()
    parts.releases.on_end(request)
    assert parts.markers.age(request.delivery.ticket) is not None


def test_a_task_that_is_run_again_by_the_broker_has_no_marker(parts: Parts) -> None:
    request = parts.receive("late")
    request.delivery.redelivered = True
    parts.releases.track(request, admitted(parts, request))
    parts.releases.on_start(request)
    request.reject(requeue=True)
    parts.releases.on_end(request)
    assert parts.markers.age(request.delivery.ticket) is None


def test_a_task_that_this_process_delivered_claims_its_slot_when_its_body_starts(
    parts: Parts,
) -> None:
    request = parts.receive("one")
    request.delivery.is_local = True
    parts.releases.on_start(request)
    assert parts.tickets.inspect(KEY).in_use == 1
    assert request.delivery.lease is not None
    assert parts.markers.age(request.delivery.ticket) is not None, "it runs once at most"
    parts.releases.on_end(request)
    assert parts.tickets.inspect(KEY).in_use == 0


def test_a_task_that_came_too_late_for_its_slot_leaves_the_line(parts: Parts, running: Any) -> None:
    request = parts.receive("one")
    request.delivery.is_local = True
    parts.releases.on_start(request)
    assert parts.tickets.inspect(KEY).waiting == 0
    assert request.delivery.lease is None


def test_a_granted_task_that_is_not_to_run_leaves_no_ticket(parts: Parts, running: Any) -> None:
    revoked = parts.receive("one")
    job = job_of(revoked)
    assert job is not None
    assert isinstance(parts.gate.admit(job), Waiting)
    parts.releases.on_end(running)
    assert parts.tickets.inspect(KEY).in_use == 1, "its turn has come"
    revoked.delivery.is_local = True
    parts.releases.on_end(revoked)
    parts.finish()
    assert parts.tickets.inspect(KEY).in_use == 0


def test_a_body_that_lost_its_slot_is_stopped_in_the_main_loop(
    parts: Parts, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    parts.releases.pool = prefork.TaskPool(1)  # unstarted: it only says that it can stop a body
    assert parts.tickets.evict(running.delivery.ticket)
    assert running._terminate_on_ack is None
    parts.main_loop.run_pending()
    assert running._terminate_on_ack == (parts.releases.pool, 15)
    said = f"lost its slot of 'user=eve': {Loss.EVICTED.value}"
    until_now(lambda: said in caplog.text, "it is logged")


def test_a_slot_that_is_lost_before_the_body_started_is_asked_for_again(parts: Parts) -> None:
    request = parts.receive("one")
    parts.releases.track(request, admitted(parts, request))
    assert parts.tickets.evict(request.delivery.ticket)
    parts.main_loop.run_pending()
    assert request.delivery.lease is None
    assert not request.delivery.finished
    assert not parts.releases.has_any()


def test_what_a_task_got_that_is_not_to_run_is_given_back(parts: Parts) -> None:
    jobs = [job_of(parts.receive("one")) for _ in range(2)]
    outcomes = [parts.gate.admit(job) for job in jobs if job is not None]
    for outcome in reversed(outcomes):
        assert isinstance(outcome, SyncLease | Waiting)
        parts.gate.take_back(outcome)
    assert (parts.tickets.inspect(KEY).waiting, parts.tickets.inspect(KEY).in_use) == (0, 0)
