"""From which queue a message was taken; and the queues of granted tasks."""

from __future__ import annotations

import kombu
import pytest
from celery import Celery

from limiter_celery._queues import (
    consume_granted,
    declare_granted,
    granted_queue,
    is_temporary,
    may_hold_copies,
    queue_of,
)


def test_the_queue_is_noted_whatever_brought_the_message_there() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    exchange = kombu.Exchange("topic", type="topic")
    app.conf.task_queues = [kombu.Queue("feeds", exchange, routing_key="feed.#")]
    consume_granted(app, lambda _: True)
    consume_granted(app, lambda _: True)  # as with a second worker in one process
    queues: list[str] = []
    with app.connection_for_write() as connection:
        taken = app.amqp.TaskConsumer(connection)
        taken.on_message = lambda message: queues.append(queue_of(app, message))
        taken.consume()
        with connection.Producer() as producer:
            producer.publish("x", exchange=exchange, routing_key="feed.import", declare=[exchange])
            producer.publish("x", exchange="", routing_key="feeds.granted")
        while len(queues) < 2:
            connection.drain_events(timeout=10.0)
    assert sorted(queues) == ["feeds", "feeds.granted"]


def with_queue(queue: kombu.Queue) -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_queues = [queue]
    return app


def test_a_queue_of_granted_tasks_is_like_the_one_beside_it_but_loses_nothing() -> None:
    app = with_queue(
        kombu.Queue(
            "feeds",
            durable=False,
            max_priority=5,
            queue_arguments={"x-queue-type": "quorum", "x-max-length": 10, "x-overflow": "reject"},
        )
    )
    granted = granted_queue(app, "feeds")
    assert (granted.name, granted.routing_key) == ("feeds.granted", "feeds.granted")
    assert (granted.durable, granted.max_priority) == (False, 5)
    assert granted.queue_arguments == {"x-queue-type": "quorum"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"exclusive": True}, True), ({"auto_delete": True}, True)],
)
def test_a_queue_that_ends_with_its_consumers_is_temporary(
    options: dict[str, bool], expected: bool
) -> None:
    app = with_queue(kombu.Queue("feeds", **options))
    assert is_temporary(app, "feeds") is expected
    assert granted_queue(app, "feeds").auto_delete is expected
    assert is_temporary(app, "unknown") is False


@pytest.mark.parametrize(
    ("kind", "expected"), [("direct", False), ("topic", True), ("fanout", True), ("headers", True)]
)
def test_behind_all_exchanges_but_direct_ones_are_copies(kind: str, expected: bool) -> None:
    app = with_queue(kombu.Queue("feeds", kombu.Exchange("x", type=kind), routing_key="feeds"))
    assert may_hold_copies(app, "feeds") is expected
    assert may_hold_copies(app, "unknown") is False


def test_a_queue_that_this_worker_does_not_know_is_not_declared() -> None:
    app = with_queue(kombu.Queue("feeds"))
    with app.connection_for_write() as connection:
        assert declare_granted(app, "unknown", connection) == []
        (granted,) = declare_granted(app, "feeds", connection)
    assert granted.name == "feeds.granted"


def test_a_message_that_another_consumer_took_is_of_the_queue_that_its_routing_key_names() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_queues = [
        kombu.Queue("first", kombu.Exchange("x"), routing_key="a"),
        kombu.Queue("feeds", kombu.Exchange("x"), routing_key="b"),
    ]
    consume_granted(app, lambda _: True)

    def taken_from(exchange: str, routing_key: str) -> str:
        info = {"exchange": exchange, "routing_key": routing_key}
        return queue_of(app, kombu.Message("x", delivery_info=info))

    assert taken_from("x", "b") == "feeds"
    assert taken_from("", "feeds") == "feeds"
    assert taken_from("other", "other") == "first", "this worker consumes it"


def test_a_queue_that_is_added_and_cancelled_later_has_one_of_granted_tasks() -> None:
    app = with_queue(kombu.Queue("feeds"))
    consume_granted(app, lambda _: True)
    with app.connection_for_write() as connection:
        consumer = app.amqp.TaskConsumer(connection)
        assert list(consumer._queues) == ["feeds.granted", "feeds"]
        consumer.add_queue(app.amqp.queues.select_add(kombu.Queue("more")))
        assert list(consumer._queues)[2:] == ["more.granted", "more"]
        consumer.cancel_by_queue("more")
        assert list(consumer._queues) == ["feeds.granted", "feeds"]
