"""What this adapter takes from Celery that is private: a release that changed it fails here."""

from __future__ import annotations

import inspect
from collections import deque
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
from billiard.pool import ApplyResult
from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency import prefork
from celery.concurrency.asynpool import AsynPool
from celery.local import Proxy
from celery.worker import consumer, control, state, strategy, worker
from celery.worker.request import Request, create_request_cls
from kombu.asynchronous import Hub
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from kombu.common import QoS
from kombu.transport import pyamqp, virtual

from limiter_celery import _celery
from limiter_celery._request import LimitedRequest


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Any) -> str:
    return " ".join(inspect.getsource(function).split())


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Request.execute_using_pool, ["self", "pool", "kwargs"]),
        (Request.on_success, ["self", "failed__retval__runtime", "kwargs"]),
        (Request.on_accepted, ["self", "pid", "time_accepted"]),
        (Request.on_failure, ["self", "exc_info", "send_failed_event", "return_ok"]),
        (Request.on_timeout, ["self", "soft", "timeout"]),
        (Request.reject, ["self", "requeue"]),
        (Request.acknowledge, ["self"]),
        (Request.revoked, ["self"]),
        (Request._announce_revoked, ["self", "reason", "terminated", "signum", "expired"]),
        (consumer.Consumer._limit_task, ["self", "request", "bucket", "tokens"]),
        (consumer.Consumer._limit_move_to_pool, ["self", "request"]),
        (state.task_ready, ["request", "successful"]),
        (state.task_reserved, ["request"]),
        (LaxBoundedSemaphore.acquire, ["self", "callback", "partial_args", "partial_kwargs"]),
        (QoS.increment_eventually, ["self", "n"]),
        (QoS.decrement_eventually, ["self", "n"]),
        (Hub.add_reader, ["self", "fds", "callback", "args"]),
        (Hub.call_repeatedly, ["self", "delay", "callback", "args"]),
    ],
    ids=lambda given: getattr(given, "__qualname__", ""),
)
def test_signatures(function: Any, expected: list[str]) -> None:
    assert parameters(function)[: len(expected)] == expected


def test_arguments_of_a_made_request_class() -> None:
    expected = ["base", "task", "pool", "hostname", "eventer"]
    assert parameters(create_request_cls)[:5] == expected
    assert "app" in parameters(create_request_cls)


def test_the_made_class_goes_through_our_gate() -> None:
    class Task:
        time_limit = soft_time_limit = None
        acks_late = False

    class Pool:
        def apply_async(self) -> None: ...

    app = Celery("guard", set_as_current=False)
    made = create_request_cls(LimitedRequest, Task(), Pool(), "host", None, app=app)
    for name in ("execute_using_pool", "on_success"):
        # Its own, not inherited: so it has to be wrapped, and is.
        assert name in made.__dict__
        assert made.__dict__[name].__wrapped__.__qualname__.startswith("create_request_cls")
    for name in ("on_failure", "on_timeout", "reject", "_announce_revoked", "on_accepted"):
        assert name not in made.__dict__


def test_the_base_of_requests_uses_the_pool_that_it_is_given() -> None:
    text = source(Request.execute_using_pool)
    assert "result = pool.apply_async( trace, args=(" in text
    for name in ("accept_callback=self.on_accepted", "callback=self.on_success"):
        assert f"{name}," in text
    assert "if self.revoked(): raise TaskRevokedError(task_id)" in text


def test_where_workers_call_what_we_stand_before() -> None:
    text = source(strategy.default)
    assert "Request = symbol_by_name(task.Request)" in text
    assert "handle = consumer.on_task_request" in text
    assert "limit_task = consumer._limit_task" in text
    assert "if body is None and 'args' not in message.payload: body, headers, decoded" in text
    assert "body, headers, decoded, utc = hybrid_to_proto2(message, message.payload)" in text
    assert "except TaskRevokedError" in source(worker.WorkController._process_task)
    text = source(consumer.Consumer.__init__)
    taken = text.index("self.on_task_request = on_task_request")
    assert taken < text.index("self.blueprint.apply(")
    assert "_process_task_sem" in source(worker.WorkController._process_task_sem)
    assert isinstance(LaxBoundedSemaphore(1)._waiting, deque)
    for command in ("revoke", "terminate", "revoke_by_stamped_headers"):
        assert parameters(control.Panel.data[command])[0] in ("state", "args")
    assert "headers" in parameters(control.revoke_by_stamped_headers)
    assert state.REVOKE_EXPIRES > 0
    # `Request._context` and the rest of a request are made of these.
    assert parameters(Request.__init__)[1] == "message"
    assert {"app", "task", "headers", "body", "utc"} < {*parameters(Request.__init__), "utc"}


def test_where_a_pool_keeps_the_jobs_that_run() -> None:
    assert "self.pool.flush()" in source(consumer.Consumer.on_close)
    text = source(prefork.TaskPool.on_start)
    assert "P = self._pool = " in text
    assert "self.flush = getattr(P, 'flush', None)" in text
    assert "self._cache" in source(AsynPool.flush)
    assert parameters(ApplyResult.accepted) == parameters(ApplyResult.ready) == ["self"]


def test_jobs_that_run_are_kept_where_a_pool_forgets_them() -> None:
    """As that of Celery before 5.7 does when the connection to the broker breaks."""
    running, ended, waits = (ApplyResult({}, None) for _ in range(3))
    for each in (running, ended):
        each._accepted = True
    ended._event.set()
    jobs = {each._job: each for each in (running, ended, waits)}
    pool = SimpleNamespace(_pool=SimpleNamespace(_cache=jobs), flush=jobs.clear)
    _celery.keep_running_jobs(pool)
    pool.flush()
    assert list(jobs.values()) == [running]


def test_a_request_has_what_we_look_at_and_set() -> None:
    text = source(Request.__init__)
    for line in (
        "self._app = app",
        "self._delivery_info = {",
        "'delivery_info': self._delivery_info",
        "'properties': properties",
        "delivery_info = message.delivery_info or {}",
    ):
        assert line in text, line
    assert isinstance(Request.stamps, property)
    app = Celery("guard", set_as_current=False)
    assert _celery.without_proxy(Proxy(lambda: app)) is app, "by way of _get_current_object"


def test_a_consumer_says_which_queue_it_consumes_from() -> None:
    """So it is noted on each message, in what becomes its `delivery_info`."""
    assert parameters(kombu.Consumer._basic_consume)[:2] == ["self", "queue"]
    text = source(kombu.Consumer._basic_consume)
    assert "queue.consume(tag, self._receive_callback," in text
    assert parameters(kombu.Queue.consume)[:3] == ["self", "consumer_tag", "callback"]
    assert "return self.Consumer(" in source(AMQP.TaskConsumer)
    assert "delivery_info=msg.delivery_info" in source(pyamqp.Message.__init__)
    assert "delivery_info" in source(virtual.Message.__init__)
    # With RabbitMQ, what comes is the driver's own, and shares its headers with kombu's.
    assert "message = m2p(message)" in source(kombu.Consumer._receive_callback)
    assert "headers=props.get('application_headers')" in source(pyamqp.Message.__init__)
    assert parameters(kombu.Consumer.add_queue) == ["self", "queue"]
    assert parameters(kombu.Consumer.cancel_by_queue) == ["self", "queue"]
    for method in (consumer.Consumer.add_task_queue, consumer.Consumer.cancel_task_queue):
        assert "self.app.amqp.queues" in source(method)
