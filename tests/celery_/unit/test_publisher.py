"""Granted tasks are published."""

from __future__ import annotations

import pytest

from limiter_celery import _publisher
from limiter_celery._delivery import job_of
from limiter_celery._parked_message import ParkedMessage, parked_message_of
from limiter_celery._publisher import _ATTEMPTS, Publisher

from ._parts import Parts


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
    assert not publisher._attempts


def test_of_tasks_that_other_workers_claimed_few_are_remembered(
    parts: Parts,
    publisher: Publisher,
    message: ParkedMessage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each was published to a queue that ends with its worker, which is not this one."""
    monkeypatch.setattr(_publisher, "_MOST", 3)
    for number in range(5):
        publisher.publish_later(f"task-{number}", message._replace(queue="gone", temporary=True))
    parts.finish()
    assert list(publisher._attempts) == ["task-2", "task-3", "task-4"]
