"""What this adapter takes from Celery that is private: a release that changed it fails here."""

from __future__ import annotations

import inspect
import re
from collections import deque
from typing import Any

import kombu
import pytest
from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency import gevent, prefork, solo, thread
from celery.local import Proxy
from celery.worker import consumer, control, state, strategy, worker
from celery.worker.request import Request, create_request_cls
from kombu.asynchronous import Hub
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from kombu.common import QoS
from kombu.transport import pyamqp, virtual

from limiter_celery import ConcurrencyLimit, ConflictResolution, LimitedTask, install
from limiter_celery._pools import admits_in_pool, can_terminate
from limiter_celery._queues import consume_granted, queue_of
from limiter_celery._request import LimitedRequest
from limiter_celery._settings import settings_of, unproxied
from limiter_celery._task import limits_of_task, view_of
from limiter_celery._worker_limiter import Porter
from limiter_core import ConfigurationError


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


def test_where_workers_call_what_we_stand_before() -> None:
    text = source(strategy.default)
    assert "Request = symbol_by_name(task.Request)" in text
    assert "handle = consumer.on_task_request" in text
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
    assert "self._apply_result = maybe(ref, result)" in source(Request.execute_using_pool)
    assert isinstance(Request.stamps, property)
    app = Celery("guard", set_as_current=False)
    assert unproxied(Proxy(lambda: app)) is app, "by way of _get_current_object"


def test_a_consumer_says_which_queue_it_consumes_from() -> None:
    """So it is noted on each message, in what becomes its `delivery_info`."""
    assert parameters(kombu.Consumer._basic_consume)[:2] == ["self", "queue"]
    text = source(kombu.Consumer._basic_consume)
    assert "queue.consume(tag, self._receive_callback," in text
    assert parameters(kombu.Queue.consume)[:3] == ["self", "consumer_tag", "callback"]
    assert "return self.Consumer(" in source(AMQP.TaskConsumer)
    assert "delivery_info=msg.delivery_info" in source(pyamqp.Message.__init__)
    assert "delivery_info" in source(virtual.Message.__init__)
    assert parameters(kombu.Consumer.add_queue) == ["self", "queue"]
    assert parameters(kombu.Consumer.cancel_by_queue) == ["self", "queue"]
    for method in (consumer.Consumer.add_task_queue, consumer.Consumer.cancel_task_queue):
        assert "self.app.amqp.queues" in source(method)


def test_the_queue_is_noted_whatever_brought_the_message_there() -> None:
    app = make_app()
    exchange = kombu.Exchange("topic", type="topic")
    app.conf.task_queues = [kombu.Queue("feeds", exchange, routing_key="feed.#")]
    consume_granted(app)
    consume_granted(app)  # as with a second worker in one process
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


def test_pools() -> None:
    def made(kind: Any) -> Any:
        return object.__new__(kind)

    assert not admits_in_pool(made(prefork.TaskPool))
    assert not admits_in_pool(made(solo.TaskPool))
    assert admits_in_pool(made(thread.TaskPool))
    assert admits_in_pool(made(gevent.TaskPool))
    assert [can_terminate(made(each.TaskPool)) for each in (prefork, gevent, thread, solo)] == [
        True,
        True,
        False,
        False,
    ]
    assert thread.TaskPool.uses_semaphore is False
    assert prefork.TaskPool.uses_semaphore is True


def body(user: int, plan: int = 1) -> None:
    """A task that never runs."""


def make_app() -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False)


def test_a_worker_without_install_refuses_to_run_the_task() -> None:
    app = make_app()

    @app.task(base=LimitedTask, limits=[ConcurrencyLimit("user")], shared=False)
    def sync(user: int) -> None: ...

    with pytest.raises(ConfigurationError, match=re.escape("install(app, store)")):
        app.tasks[sync.name].start_strategy(app, object())


def test_a_task_with_limits_and_without_the_base_is_refused() -> None:
    from limiter_celery._install import _refuse_markers_without_base

    app = make_app()

    @app.task(limits=[ConcurrencyLimit("user")], name="sync", shared=False)
    def sync(user: int) -> None: ...

    app.finalize()
    with pytest.raises(ConfigurationError, match="no base=LimitedTask"):
        _refuse_markers_without_base(app)


@pytest.mark.parametrize("limits", [(), ["user"], None, 3])
def test_limits_that_are_none_are_refused(limits: Any) -> None:
    app = make_app()
    task = app.task(base=LimitedTask, limits=limits, name="sync", shared=False)(body)
    with pytest.raises(ConfigurationError, match="the task sync needs limits="):
        limits_of_task(app.tasks[task.name])


def test_a_pool_of_threads_refuses_to_preempt() -> None:
    from limiter_celery._worker_limiter import Porter

    app = make_app()
    install(app, "memory://")
    limit = ConcurrencyLimit("user", on_conflict=ConflictResolution.CANCEL_RUNNING)
    task = app.task(base=LimitedTask, limits=limit, name="sync", shared=False)(body)
    settings = settings_of(app)
    assert settings is not None

    class Consumer:
        pool = object.__new__(thread.TaskPool)

    with pytest.raises(ConfigurationError, match="cannot stop a task that runs"):
        Porter(app, settings).learn(app.tasks[task.name], Consumer())


@pytest.mark.parametrize("by", ["usr", "self", ["user", "usr"], "usr.name"])
def test_an_argument_that_the_task_does_not_have_is_refused_when_the_worker_starts(by: Any) -> None:
    app = make_app()
    install(app, "memory://")

    @app.task(bind=True, base=LimitedTask, limits=ConcurrencyLimit(by), name="sync", shared=False)
    def sync(self: Any, user: int, plan: int = 1) -> None: ...

    settings = settings_of(app)
    assert settings is not None
    settings.porter = Porter(app, settings)
    consumer = type("Consumer", (), {"pool": object.__new__(prefork.TaskPool)})()
    with pytest.raises(ConfigurationError, match="sync does not have; there are: user, plan"):
        app.tasks["sync"].start_strategy(app, consumer)


def test_installing_twice_is_refused_and_a_producer_connects_to_nothing() -> None:
    app = make_app()
    install(app, "redis://nowhere.invalid:1/0")
    with pytest.raises(ConfigurationError, match="already"):
        install(app, "memory://")


def test_names_tell_apps_apart() -> None:
    app, other = make_app(), Celery("other", set_as_current=False)
    install(app, "memory://")
    install(other, "memory://", name="celery:shop")
    names = [settings.name for each in (app, other) if (settings := settings_of(each))]
    assert names == ["celery:shop", "celery:shop"]


def test_strategies_see_arguments_by_name() -> None:
    app = make_app()

    @app.task(
        bind=True, base=LimitedTask, limits=ConcurrencyLimit("user"), name="a.b", shared=False
    )
    def sync(self: Any, user: int, region: str = "eu", **more: Any) -> None: ...

    task = app.tasks["a.b"]
    by_position, by_name = view_of(task, [1], {}), view_of(task, [], {"user": 1, "x": 2})
    assert (by_position["user"], by_position["region"]) == (1, "eu")
    assert (by_name["user"], by_name["x"]) == (1, 2)
    assert by_name.function_name == "a.b"
    with pytest.raises(TypeError):
        view_of(task, [1, 2, 3], {})


def test_limits_and_priority_functions_are_no_methods() -> None:
    app = make_app()
    limit = ConcurrencyLimit("user", lambda call: call["plan"])
    task = app.task(base=LimitedTask, limits=limit, name="sync", shared=False)(body)
    assert limits_of_task(app.tasks[task.name]) == (limit,)


def test_the_redis_store_has_a_keeper_that_may_be_started_in_a_thread_of_ours() -> None:
    from limiter_redis import RedisStore

    store = RedisStore("redis://nowhere.invalid:1/0")
    assert parameters(store.keeper.ensure_running) == []
    # Giving notices keeps it running, in the thread in which it began.
    assert "on_notice" in source(type(store.keeper)._run)


def test_a_new_connection_leaves_no_timer_of_the_last() -> None:
    app = make_app()
    install(app, "redis://nowhere.invalid:1/0")
    settings = settings_of(app)
    assert settings is not None
    porter = Porter(app, settings)
    porter.has_semaphore = True
    hub = Hub()
    given = type("Consumer", (), {"hub": hub})()
    for _ in range(3):
        porter.connected(given)
    assert len([each for each in hub.timer.queue if not each.entry.canceled]) == 1
    hub.close()
