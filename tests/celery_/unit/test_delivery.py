"""How far one delivery has come; that it is run, or handed over, is decided once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import kombu

from limiter_celery._delivery import job_of
from limiter_celery._parked_message import parked_message_of

from ._parts import Parts


def test_a_ticket_names_one_attempt_of_a_task(parts: Parts) -> None:
    first = parts.receive("one", task_id="a").delivery
    retry = parts.receive("one", task_id="a", retries=1).delivery
    assert (first.ticket, retry.ticket) == ("a:0:0", "a:1:0")


def test_where_queues_have_copies_each_copy_has_a_ticket(parts: Parts) -> None:
    queue = parts.app.conf.task_default_queue
    parts.app.amqp.queues[queue].exchange = kombu.Exchange("feeds", type="fanout")
    assert parts.receive("one", task_id="a").delivery.ticket == f"a:0:0:{queue}"


def test_each_request_is_behind_all_before_it(parts: Parts) -> None:
    orders = [parts.receive("one").delivery.order for _ in range(20)]
    assert orders == sorted(set(orders))


def test_a_countdown_is_over_before_the_place_in_line_counts(parts: Parts) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    assert parts.receive("one", eta=eta).delivery.order == int(eta.timestamp() * 1e6)


def test_a_task_that_waited_keeps_its_place_in_line(parts: Parts) -> None:
    first = parts.receive("one")
    parked_message_of(first).publish(parts.app)
    later = parts.receive("one")
    again = parts.receive(None)
    assert again.delivery.order == first.delivery.order < later.delivery.order
    assert again.delivery.waited
    assert again.delivery.ticket == first.delivery.ticket


def test_a_delivery_that_is_in_the_pool_is_not_handed_over(parts: Parts) -> None:
    delivery = parts.receive("one").delivery
    assert delivery.submit()
    assert not delivery.hand_over()


def test_a_delivery_that_was_handed_over_does_not_go_to_the_pool(parts: Parts) -> None:
    delivery = parts.receive("one").delivery
    assert delivery.hand_over()
    assert not delivery.submit()
    assert delivery.hand_over(), "as often as one asks"


def test_a_delivery_ends_once(parts: Parts) -> None:
    delivery = parts.receive("one").delivery
    assert delivery.finish()
    assert not delivery.finish()


def test_the_gate_is_asked_with_the_arguments_by_name(parts: Parts) -> None:
    request = parts.receive("one", "eve")
    job = job_of(request)
    assert job is not None
    assert job.ticket == request.delivery.ticket
    assert job.arguments["user"] == "eve"
    assert job.payload == parked_message_of(request).pack()
    assert job.label == f"one[{request.id}]"


def test_arguments_that_do_not_fit_ask_for_nothing(parts: Parts) -> None:
    assert job_of(parts.receive("one", "eve", "too", "many")) is None
