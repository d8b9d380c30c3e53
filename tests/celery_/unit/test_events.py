"""Events of tasks: each attempt has one outcome, however often it is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state

import limiter_core
from limiter_celery import _celery
from limiter_celery._parked_message import parked_message_of
from limiter_celery._request_factory import RequestFactory
from limiter_core import events
from limiter_core.jobs import error_of
from tests.core._events import EventRecorder

from ._parts import Parts

KEY = "user=eve"


@pytest.fixture
def seen() -> Iterator[EventRecorder]:
    seen = EventRecorder()
    remove = limiter_core.observe(seen)
    yield seen
    remove()


@pytest.fixture
def holder(parts: Parts, seen: EventRecorder) -> Any:
    """A task that runs."""
    return run(parts, parts.receive("one"))


def run(parts: Parts, request: Any) -> Any:
    """Admit a task, and start its body."""
    parts.admission.admit(request)
    request.delivery.submit()
    parts.releases.on_start(request)
    return request


def refuse(parts: Parts, request: Any) -> None:
    """Offer a task that is not to run now."""
    with pytest.raises(_celery.TaskRevokedError):
        parts.admission.admit(request)


def deliver_again(parts: Parts, request: Any) -> Any:
    """Return the delivery of a task whose turn has come."""
    parked_message_of(request).publish(parts.app)
    return parts.receive(None)


def report(parts: Parts) -> None:
    """Report the one task that is not to run."""
    (notice,) = parts.notices
    error = error_of(notice)
    assert error is not None
    parts.make_refusals(RequestFactory(parts.consumer)).report_later(notice, error)
    parts.finish()


def test_a_task_that_waits_and_runs(parts: Parts, seen: EventRecorder, holder: Any) -> None:
    waits = parts.receive("one")
    refuse(parts, waits)
    parts.releases.on_end(holder)
    parts.releases.on_end(run(parts, deliver_again(parts, waits)))
    assert seen.kinds == ["Granted", "Queued", "Released", "Granted", "Released"]
    assert [event.function for event in seen.events] == ["one"] * 5
    assert {event.names for event in seen.events} == {("user",)}
    seen.check_invariants(2)


def test_a_task_that_is_handed_over_before_it_starts(
    parts: Parts, seen: EventRecorder, holder: Any
) -> None:
    """No process was free here: only the delivery that starts counts as granted."""
    waits = parts.receive("one")
    refuse(parts, waits)
    parts.releases.on_end(holder)
    first = deliver_again(parts, waits)
    parts.admission.admit(first)
    assert parts.tickets.inspect(KEY).in_use == 1
    assert first.delivery.hand_over()
    parts.releases.on_end(first, completed=False)
    parts.releases.on_end(run(parts, deliver_again(parts, waits)))
    seen.check_invariants(2)


def test_a_copy_of_a_task_that_has_finished(parts: Parts, seen: EventRecorder, holder: Any) -> None:
    """Its slot was offered a second time, since it was not claimed in time."""
    waits = parts.receive("one", task_id="a")
    refuse(parts, waits)
    again, copy, later = (deliver_again(parts, waits) for _ in range(3))
    parts.releases.on_end(holder)
    run(parts, again)
    again.acknowledge()
    parts.releases.on_end(again)
    refuse(parts, copy)
    next_one = run(parts, parts.receive("one"))
    refuse(parts, later)  # it would have to wait
    parts.releases.on_end(next_one)
    assert parts.tickets.inspect(KEY).waiting == 0
    seen.check_invariants(3)


def test_a_task_that_was_revoked_when_its_turn_came(
    parts: Parts, seen: EventRecorder, holder: Any
) -> None:
    waits = parts.receive("one")
    refuse(parts, waits)
    parts.releases.on_end(holder)
    state.revoked.add(waits.id)
    refuse(parts, deliver_again(parts, waits))
    parts.finish()
    assert parts.tickets.inspect(KEY).in_use == 0
    cancelled = seen.one(events.Cancelled)
    assert (cancelled.function, cancelled.keys) == ("one", (KEY,))
    seen.check_invariants(2)


def test_a_task_that_was_revoked_while_the_store_was_away(
    parts: Parts, seen: EventRecorder, holder: Any
) -> None:
    """The worker learns of the revoke when it has asked for the slot."""
    waits = parts.receive("one")
    refuse(parts, waits)
    parts.revocations.note(waits.id)
    parts.releases.on_end(holder)
    assert not parts.revocations.loaded
    refuse(parts, deliver_again(parts, waits))
    parts.finish()
    assert parts.tickets.inspect(KEY).in_use == 0
    assert seen.one(events.Cancelled).function == "one"
    seen.check_invariants(2)


def test_a_task_that_leaves_the_queue(parts: Parts, seen: EventRecorder, holder: Any) -> None:
    waits = parts.receive("one")
    refuse(parts, waits)
    parts.parked_tasks.revoke({waits.id})
    parts.parked_tasks.revoke({waits.id})
    report(parts)
    parts.releases.on_end(holder)
    cancelled = seen.one(events.Cancelled)
    assert (cancelled.keys, cancelled.names, cancelled.function) == ((KEY,), ("user",), "one")
    seen.check_invariants(2)


def test_a_task_that_comes_behind_its_successor(parts: Parts, seen: EventRecorder) -> None:
    """It is refused by the answer, and there is a notice besides."""
    first = run(parts, parts.receive("latest"))
    older, newer = parts.receive("latest"), parts.receive("latest")
    refuse(parts, newer)
    refuse(parts, older)
    (notice,) = parts.notices
    error = error_of(notice)
    parts.gate.report_removed(notice.id, error, function="latest")
    parts.notices.clear()
    parts.parked_tasks.revoke({newer.id})
    report(parts)
    parts.releases.on_end(first)
    refused = seen.one(events.Refused)
    assert (refused.reason, refused.names) == ("superseded", ("user",))
    seen.check_invariants(3)
