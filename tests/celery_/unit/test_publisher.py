"""Granted tasks are published; tasks that waited, and are not to run, are reported as REVOKED."""

from __future__ import annotations

import pytest
from celery import states

from limiter_celery._delivery import job_of
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._parked_message import ParkedMessage, parked_message_of
from limiter_celery._publisher import _ATTEMPTS, REPORTED_FOR, Publisher, Refusals
from limiter_celery._request_factory import RequestFactory

from ._parts import NAME, Parts


@pytest.fixture
def publisher(parts: Parts) -> Publisher:
    return Publisher(parts.app, parts.scheduler, parts.gate)


@pytest.fixture
def message(parts: Parts) -> ParkedMessage:
    return parked_message_of(parts.receive("one"))


def test_a_task_is_published_to_the_queue_of_granted_tasks(
    parts: Parts, publisher: Publisher, message: ParkedMessage
) -> None:
    publisher.publish_later("ticket", message)
    assert parts.published() == 0
    parts.finish()
    assert parts.published() == 1


def test_a_worker_that_ends_publishes_once_it_polls_no_more(
    parts: Parts, publisher: Publisher, message: ParkedMessage
) -> None:
    publisher.close()
    publisher.publish_later("late", message)
    ran: list[int] = []
    parts.scheduler.call_later(1.0, lambda: ran.append(parts.published()))
    parts.finish()
    assert ran == [0], "not within a second"
    assert parts.published() == 1


def test_a_task_of_a_queue_that_ended_with_its_worker_is_dropped_in_the_end(
    parts: Parts, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    holder = parts.receive("one")
    parts.admission.admit(holder)
    waits = job_of(parts.receive("one"))
    assert waits is not None
    parts.gate.admit(waits)
    message = parked_message_of(holder)._replace(queue="gone", temporary=True)
    left: list[int] = []
    for _ in range(_ATTEMPTS + 1):
        publisher.publish_later(waits.ticket, message)
        parts.scheduler.call_soon(lambda: left.append(parts.tickets.inspect("user=eve").waiting))
    parts.finish()
    assert left == [1] * _ATTEMPTS + [0]
    assert "no worker consumes the queue gone" in caplog.text


@pytest.fixture
def refusals(parts: Parts) -> Refusals:
    return Refusals(
        app=parts.app,
        requests=RequestFactory(parts.consumer),
        markers=parts.markers,
        scheduler=parts.scheduler,
        gate=parts.gate,
        reports=ExpiringSet(parts.tickets, f"{NAME}:reports", REPORTED_FOR),
        withdraw=parts.tickets.withdraw,
    )


def test_a_task_that_this_worker_knows_is_reported_at_once(
    parts: Parts, refusals: Refusals
) -> None:
    refusals.requests.add(parts.app.tasks["one"], parts.request_class)
    request = parts.receive("one")
    refusals.report_later("ticket", parked_message_of(request).pack(), "expired")
    parts.finish()
    assert parts.state_of(request) == states.REVOKED
    assert parts.markers.age("ticket") is not None
    assert parts.published() == 0


def test_a_task_that_this_worker_does_not_know_is_reported_by_one_that_does(
    parts: Parts, refusals: Refusals, message: ParkedMessage
) -> None:
    refusals.report_later("ticket", message.pack(), "timed out")
    parts.finish()
    again = parts.receive(None)
    assert again.delivery.refusal == "timed out"
