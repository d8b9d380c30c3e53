"""A limited request in the pool: admitted before its body, released on every outcome."""

from __future__ import annotations

from typing import Any

import pytest
from celery import _state, states
from celery.concurrency import solo, thread
from celery.exceptions import TaskRevokedError
from celery.worker import state

from limiter_celery._parked_message import Origin, parked_before, parked_message_of, unpack
from limiter_celery._request_factory import RequestFactory

from ._parts import Parts

KEY = "user=eve"


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Any:
    pool = request.param(1)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture(autouse=True)
def current_app(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the app that of this process, as in a worker: Celery's tracer looks tasks up in it."""
    monkeypatch.setattr(_state, "default_app", parts.app)
    monkeypatch.setattr(_state._tls, "current_app", None)


EACH_POOL = pytest.mark.parametrize("pool", [solo.TaskPool, thread.TaskPool], indirect=True)


def run(request: Any, pool: Any) -> None:
    """Run a task in a pool, to its end."""
    request.execute_using_pool(pool)
    if isinstance(pool, thread.TaskPool):
        pool.executor.submit(lambda: None).result(10.0)  # it has one thread


@EACH_POOL
def test_a_task_runs_with_its_slot_and_gives_it_back(parts: Parts, pool: Any) -> None:
    in_use: list[int] = []
    parts.app.tasks["one"].run = lambda user="eve": in_use.append(parts.tickets.inspect(KEY).in_use)
    request = parts.receive("one")
    run(request, pool)
    assert in_use == [1]
    assert parts.tickets.inspect(KEY).in_use == 0
    assert parts.state_of(request) == states.SUCCESS
    assert request.message.acknowledged


@EACH_POOL
def test_a_body_that_raises_gives_its_slot_back(parts: Parts, pool: Any) -> None:
    def fail(user: str = "eve") -> None:
        raise ValueError("on purpose")

    parts.app.tasks["one"].run = fail
    request = parts.receive("one")
    run(request, pool)
    assert parts.tickets.inspect(KEY).in_use == 0
    assert parts.state_of(request) == states.FAILURE


def test_a_task_that_has_to_wait_does_not_go_to_the_pool(parts: Parts) -> None:
    parts.admission.admit(parts.receive("one"))
    request = parts.receive("one")
    with pytest.raises(TaskRevokedError):
        request.execute_using_pool(parts.consumer.pool)
    assert not request.delivery.submitted
    assert parts.tickets.inspect(KEY).waiting == 1


@pytest.mark.parametrize("pool", [thread.TaskPool], indirect=True)
def test_a_task_that_has_to_wait_leaves_its_thread_without_an_outcome(
    parts: Parts, pool: Any
) -> None:
    parts.admission.admit(parts.receive("one"))
    request = parts.receive("one")
    run(request, pool)
    assert not request.delivery.submitted
    assert parts.tickets.inspect(KEY).waiting == 1
    assert parts.state_of(request) == states.PENDING


@EACH_POOL
def test_a_task_that_was_handed_over_is_not_run(parts: Parts, pool: Any) -> None:
    request = parts.receive("one")
    request.delivery.hand_over()
    with pytest.raises(TaskRevokedError):
        request.execute_using_pool(pool)
    assert parts.tickets.inspect(KEY).in_use == 0


def test_a_task_that_the_store_says_was_revoked_is_revoked(parts: Parts) -> None:
    parked_message_of(parts.receive("one", task_id="a")).publish(parts.app)
    parts.revocations.note("a")
    parts.revocations.load()
    request = parts.receive(None)
    assert request.revoked()
    assert parts.state_of(request) == states.REVOKED
    assert request.delivery.finished


def test_a_task_that_did_not_wait_is_not_looked_up(parts: Parts) -> None:
    """The revoke was of a task of the same id, sent earlier."""
    parts.revocations.note("a")
    parts.revocations.load()
    assert not parts.receive("one", task_id="a").revoked()


def test_a_retry_is_sent_to_where_its_task_came_from(parts: Parts) -> None:
    first = parts.receive("one")
    parked_message_of(first).publish(parts.app)
    again = parts.receive(None)
    assert again.message.delivery_info["routing_key"].endswith(".granted")
    for name in ("exchange", "routing_key"):
        assert again.delivery_info[name] == first.delivery_info[name]


def test_a_message_that_the_broker_has_again_is_noted(parts: Parts) -> None:
    request = parts.receive("late")
    request.reject(requeue=True)
    assert request.delivery.requeued


def test_requests_are_made_of_parked_messages(parts: Parts) -> None:
    requests = RequestFactory(parts.consumer)
    first = parts.receive("one", "adam")
    message = parked_message_of(first)._replace(queue="feeds")
    assert not requests.has(message.task_in(parts.app))
    requests.add(parts.app.tasks["one"], parts.request_class)
    assert requests.has(message.task_in(parts.app))
    made = requests.make(message)
    assert (made.id, made.args, made.name) == (first.id, ["adam"], "one")
    assert made.delivery.ticket == first.delivery.ticket
    assert made.delivery.queue == "feeds"
    made.acknowledge()  # it came from no broker
    assert made not in state.reserved_requests


def test_requests_are_made_of_messages_of_protocol_1(parts: Parts) -> None:
    """The name of the task, and all else that is in headers now, was in the body."""
    app = parts.app
    app.conf.task_protocol = 1
    sent = app.send_task("one", ("adam",), connection=parts.connection, retries=1)
    message = app.amqp.queues[app.conf.task_default_queue](parts.channel).get()
    assert message is not None
    assert "task" not in message.headers
    origin = Origin("", "feeds", "feeds", temporary=False, order=7, properties={})
    parked = unpack(parked_before(message, origin).pack())
    requests = RequestFactory(parts.consumer)
    requests.add(app.tasks["one"], parts.request_class)
    assert requests.has(parked.task_in(app))
    made = requests.make(parked)
    assert (made.id, made.args, made.name) == (sent.id, ["adam"], "one")
    assert made.delivery.ticket == f"{sent.id}:1:0"


def test_a_message_that_cannot_be_read_has_no_task(parts: Parts) -> None:
    message = parked_message_of(parts.receive("one"))
    unreadable = message._replace(headers={}, body=b"{", content_type="application/json")
    assert unreadable.task_in(parts.app) is None
    assert message._replace(headers={}).task_in(parts.app) is None, "its body has none"
