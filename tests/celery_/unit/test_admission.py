"""For each delivery: into the pool, into the store to wait, again later, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from celery import states
from celery.exceptions import TaskRevokedError
from celery.worker import state

from limiter_celery import ConcurrencyLimit
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._parked_message import parked_message_of

from ._parts import NAME, Parts

KEY = "user=eve"


def refused(parts: Parts, request: Any) -> None:
    """Assert that a task may not run now."""
    with pytest.raises(TaskRevokedError):
        parts.admission.admit(request)
    assert request.delivery.lease is None


def granted(parts: Parts, request: Any) -> Any:
    """Have a task wait, then come again for the slot that `holder` gives back."""
    refused(parts, request)
    parked_message_of(request).publish(parts.app)
    return parts.receive(None)


def deferred(parts: Parts) -> int:
    """Return how many deliveries are to be tried again."""
    parts.main_loop.run_pending()
    return len(parts.consumer.timer.queue)


@pytest.fixture
def holder(parts: Parts) -> Any:
    """A task that has the slot."""
    request = parts.receive("one")
    parts.admission.admit(request)
    return request


def test_a_task_that_may_run_has_a_slot(parts: Parts, holder: Any) -> None:
    assert holder.delivery.lease is not None
    assert parts.tickets.inspect(KEY).in_use == 1
    parts.admission.admit(holder)
    assert parts.tickets.inspect(KEY).in_use == 1, "it is not asked for twice"


def test_a_task_that_has_to_wait_is_parked_and_its_message_acknowledged(
    parts: Parts, holder: Any
) -> None:
    request = parts.receive("one")
    refused(parts, request)
    assert request.message.acknowledged
    assert request not in state.reserved_requests
    assert parts.tickets.inspect(KEY).waiting == 1
    assert parts.state_of(request) == states.PENDING
    parts.parked_tasks.revoke({request.id})
    assert parts.tickets.inspect(KEY).waiting == 0


def test_a_superseded_task_is_revoked_where_it_comes_last(parts: Parts) -> None:
    parts.admission.admit(parts.receive("latest", "adam"))
    older, newer = parts.receive("latest", "adam"), parts.receive("latest", "adam")
    refused(parts, newer)
    refused(parts, older)
    assert parts.state_of(older) == states.REVOKED
    assert parts.tickets.inspect("user=adam").waiting == 1


def test_a_copy_of_a_task_that_runs_is_tried_again(parts: Parts) -> None:
    first = parts.receive("late", task_id="a")
    parts.admission.admit(first)
    copy = parts.receive("late", task_id="a")
    refused(parts, copy)
    assert deferred(parts) == 1
    (timer,) = parts.consumer.timer.queue
    assert 3.0 < timer.eta - monotonic() < 5.6, "sooner than its lease of 30 seconds may end"
    assert not copy.message.acknowledged


def test_a_granted_copy_of_a_task_that_runs_is_dropped(parts: Parts, holder: Any) -> None:
    waits = parts.receive("one", task_id="a")
    again = granted(parts, waits)
    parts.releases.on_end(holder)
    parts.admission.admit(again)
    parked_message_of(waits).publish(parts.app)
    copy = parts.receive(None)
    refused(parts, copy)
    assert copy.message.acknowledged
    assert deferred(parts) == 0


def test_a_copy_of_a_task_that_has_finished_is_dropped(parts: Parts, holder: Any) -> None:
    waits = parts.receive("one", task_id="a")
    again = granted(parts, waits)
    parked_message_of(waits).publish(parts.app)
    parts.releases.on_end(holder)
    parts.admission.admit(again)
    again.delivery.submit()
    parts.releases.on_start(again)
    again.acknowledge()
    parts.releases.on_end(again)
    copy = parts.receive(None)
    refused(parts, copy)
    assert copy.message.acknowledged
    assert parts.tickets.inspect(KEY).in_use == 0


def test_a_task_that_ran_after_its_admission_failed_halfway_does_not_run_again(
    parts: Parts, holder: Any
) -> None:
    """It waits in the store all the same, and is granted before its message is tried again."""

    class FailsToClear(CompletionMarkers):
        def clear(self, ticket: str) -> None:
            raise RuntimeError("a mistake")

    waits = parts.receive("one", task_id="a")
    parts.admission.markers = FailsToClear(parts.tickets, NAME, 60.0)
    again = granted(parts, waits)
    assert not waits.message.acknowledged
    assert deferred(parts) == 1
    parts.releases.on_end(holder)
    parts.admission.admit(again)
    again.delivery.submit()
    parts.releases.on_start(again)
    again.acknowledge()
    parts.releases.on_end(again)
    refused(parts, waits)
    assert waits.message.acknowledged
    assert parts.tickets.inspect(KEY).in_use == 0


@pytest.mark.parametrize("mistake", [RuntimeError, KeyboardInterrupt])
def test_a_slot_is_given_back_if_its_admission_fails_halfway(
    parts: Parts, mistake: type[BaseException]
) -> None:
    class FailsToClear(CompletionMarkers):
        def clear(self, ticket: str) -> None:
            raise mistake

    request = parts.receive("late")
    parts.admission.markers = FailsToClear(parts.tickets, NAME, 60.0)
    with pytest.raises((TaskRevokedError, KeyboardInterrupt)):
        parts.admission.admit(request)
    assert parts.tickets.inspect(KEY).in_use == 0
    assert not request.message.acknowledged


def test_a_task_that_is_sent_again_under_its_id_runs_again(parts: Parts) -> None:
    first = parts.receive("late", task_id="a")
    parts.admission.admit(first)
    parts.markers.set(first.delivery.ticket)
    parts.releases.on_end(first)
    again = parts.receive("late", task_id="a")
    parts.admission.admit(again)
    assert again.delivery.lease is not None
    assert parts.markers.age(again.delivery.ticket) is None


def test_a_task_that_was_revoked_while_no_worker_knew_is_not_run(parts: Parts, holder: Any) -> None:
    again = granted(parts, parts.receive("one"))
    parts.revocations.note(again.id)
    parts.releases.on_end(holder)
    assert not parts.revocations.loaded
    refused(parts, again)
    assert parts.state_of(again) == states.REVOKED
    parts.finish()
    assert parts.tickets.inspect(KEY).in_use == 0


@pytest.mark.parametrize("stamps", [{}, {"tenant": ["a"]}])
def test_a_task_that_is_revoked_while_it_is_parked_leaves_at_once(
    parts: Parts, holder: Any, stamps: dict[str, list[str]]
) -> None:
    """Pools of threads park a task while the main thread receives the revoke."""

    class RevokedMeanwhile(CompletionMarkers):
        def clear(self, ticket: str) -> None:
            super().clear(ticket)
            if stamps:
                state.revoked_stamps.update(stamps)
            else:
                state.revoked.add(waits.id)
            parts.parked_tasks.revoke({waits.id})  # by which it is not found yet

    waits = parts.receive("one", stamped_headers=["tenant"], tenant="a")
    parts.admission.markers = RevokedMeanwhile(parts.tickets, NAME, 60.0)
    try:
        refused(parts, waits)
    finally:
        state.revoked.clear()
        state.revoked_stamps.clear()
    assert parts.tickets.inspect(KEY).waiting == 0
    assert parts.removed() == [(waits.delivery.ticket, "revoked")]


def test_a_revoke_of_others_that_comes_while_a_task_is_parked_leaves_it_parked(
    parts: Parts, holder: Any
) -> None:
    """The main thread adds a header to the revoked ones while a thread of the pool reads them."""

    class ReadMeanwhile(list[str]):
        def __iter__(self) -> Iterator[str]:
            state.revoked_stamps["region"] = ["eu"]
            return super().__iter__()

    waits = parts.receive("one", stamped_headers=["tenant"], tenant="a")
    state.revoked_stamps.update(tenant=ReadMeanwhile(["b"]), plan=["free"])
    try:
        refused(parts, waits)
    finally:
        state.revoked_stamps.clear()
    assert waits.message.acknowledged
    assert deferred(parts) == 0
    assert parts.tickets.inspect(KEY).waiting == 1


def test_a_local_delivery_that_came_too_late_leaves_its_ticket_alone(parts: Parts) -> None:
    request = parts.receive("one")
    request.delivery.is_local = True
    refused(parts, request)
    assert request.delivery.handed_over
    assert request not in state.reserved_requests
    assert not request.message.acknowledged


def test_a_strategy_that_fails_fails_its_task(parts: Parts) -> None:
    def broken(_view: Any) -> int:
        raise RuntimeError("the tenant's table is gone")

    request = parts.receive("one")
    type(request.task).limits = ConcurrencyLimit("user", broken)
    refused(parts, request)
    assert parts.state_of(request) == states.FAILURE
    assert request.message.acknowledged


def test_arguments_that_do_not_fit_are_let_through(parts: Parts) -> None:
    request = parts.receive("one", "eve", "too", "many")
    parts.admission.admit(request)
    assert request.delivery.lease is None


def test_while_the_store_is_away_tasks_are_tried_again(without_store: Parts) -> None:
    request = without_store.receive("one")
    refused(without_store, request)
    assert deferred(without_store) == 1
    assert request.delivery.outcome_unknown
    assert not request.message.acknowledged


def test_while_the_store_is_away_it_is_not_asked_for_each_task(without_store: Parts) -> None:
    refused(without_store, without_store.receive("one"))
    second = without_store.receive("one")
    refused(without_store, second)
    assert not second.delivery.outcome_unknown
    assert deferred(without_store) == 2


def evicted(parts: Parts, request: Any) -> Any:
    """Have a task wait, and be evicted; return the delivery that meets that."""
    waits = granted(parts, request)
    parts.reasons.note(waits.delivery.ticket, "expired")
    assert parts.tickets.evict_waiter(waits.delivery.ticket)
    return waits


def test_a_task_whose_waiting_was_ended_is_reported_with_the_reason(
    parts: Parts, holder: Any
) -> None:
    waits = evicted(parts, parts.receive("one"))
    refused(parts, waits)
    assert parts.state_of(waits) == states.REVOKED
    assert str(parts.app.AsyncResult(waits.id).result) == "expired"
    assert waits.message.acknowledged
    assert holder.delivery.lease is not None
    assert parts.tickets.inspect(f"{NAME}:reasons").in_use == 0, "it is of no more use"


def test_a_task_that_was_reported_as_refused_does_not_run_when_it_is_delivered_again(
    parts: Parts, holder: Any
) -> None:
    """Its worker was killed before it acknowledged the message, or before it reported the task."""
    waits = evicted(parts, parts.receive("one"))
    again = parked_message_of(waits)

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    waits.announce_revoked = killed
    with pytest.raises(SystemExit):
        parts.admission.admit(waits)
    assert parts.tickets.withdraw(waits.delivery.ticket, [KEY]) is False, "it is forgotten"
    parts.releases.on_end(holder)
    again.publish(parts.app)
    copy = parts.receive(None)
    refused(parts, copy)
    assert parts.state_of(copy) == states.REVOKED
    assert copy.message.acknowledged
    assert parts.tickets.inspect(KEY).in_use == 0
    again.publish(parts.app)
    refused(parts, parts.receive(None))
    assert parts.tickets.inspect(KEY).in_use == 0
