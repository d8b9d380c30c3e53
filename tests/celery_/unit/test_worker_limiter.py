"""The parts as a worker wires them: on a worker of Celery that is made, and not started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import _state, states
from celery.bootsteps import RUN
from celery.worker import state
from celery.worker.request import create_request_cls

from limiter_celery import ConcurrencyLimit
from limiter_celery._admission_hook import AdmissionHook
from limiter_celery._celery import Request
from limiter_celery._parked_message import HEADERS, PUBLICATION
from limiter_celery._request_factory import RequestFactory
from limiter_celery._worker_limiter import Settings, WorkerLimiter
from limiter_core import SyncLimiter
from limiter_memory import MemoryStore
from tests.redis._tools import until_now

from ._parts import NAME, make_app


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    app = make_app()
    monkeypatch.setattr(_state, "default_app", app)
    monkeypatch.setattr(_state._tls, "current_app", None)
    worker = app.WorkController(hostname="unit", pool="solo", concurrency=1)
    worker.consumer.blueprint.state = RUN
    worker.consumer.event_dispatcher = None
    # A worker that consumes has declared it. kombu's transport in memory loses a message that one
    # thread puts into a queue while another thread makes the same queue.
    published(worker, f"{app.conf.task_default_queue}.granted")
    yield worker
    worker.timer.stop()
    for request in (*state.reserved_requests, *state.active_requests):
        state.task_ready(request)
    app.close()


@pytest.fixture
def limiter(worker: Any, store: MemoryStore) -> Iterator[WorkerLimiter]:
    limiter = WorkerLimiter(worker, Settings(store, NAME, 30.0, "raise", None))
    limiter.start()
    yield limiter
    limiter.close()


def received(worker: Any, limiter: WorkerLimiter, queue: str) -> Any:
    """Return the request of the next message of a queue, and have the consumer process it."""
    app = worker.app
    with app.connection_for_write() as connection:
        message = app.amqp.queues[queue](connection.default_channel).get()
        assert message is not None
        task = app.tasks[message.headers["task"]]
        made = create_request_cls(limiter.prepare(task), task, worker.pool, "unit", None, app=app)
        request = made(message, app=app, task=task, on_ack=message.ack_log_error)
        state.task_reserved(request)
        worker.consumer.on_task_request(request)
    return request


def published(worker: Any, queue: str) -> int:
    with worker.app.connection_for_write() as connection:
        bound = worker.app.amqp.queues[queue](connection.default_channel)
        return bound.queue_declare().message_count


def test_a_task_waits_is_granted_and_runs(
    worker: Any, limiter: WorkerLimiter, store: MemoryStore
) -> None:
    app = worker.app
    queue = app.conf.task_default_queue
    assert isinstance(worker.consumer.on_task_request, AdmissionHook)
    with SyncLimiter(store) as operator:
        holder = operator.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        app.send_task("late")
        waits = received(worker, limiter, queue)
        assert operator.inspect("user=eve").waiting == 1
        assert app.AsyncResult(waits.id).state == states.PENDING
        holder.release()
        granted = f"{queue}.granted"
        until_now(lambda: published(worker, granted) == 1, "it is published", patience=10.0)
        request = received(worker, limiter, granted)
        assert request.id == waits.id
        assert app.AsyncResult(request.id).state == states.SUCCESS
        assert operator.inspect("user=eve").in_use == 0


def test_once_the_worker_has_ended_tasks_wait_for_another(
    worker: Any, limiter: WorkerLimiter, store: MemoryStore
) -> None:
    app = worker.app
    queue = app.conf.task_default_queue
    with SyncLimiter(store) as operator:
        holder = operator.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        app.send_task("one")
        received(worker, limiter, queue)
        limiter.close()
        holder.release()
        assert published(worker, f"{queue}.granted") == 0
        assert operator.inspect("user=eve").in_use == 0, "no worker would claim it"
        other = WorkerLimiter(worker, Settings(store, NAME, 30.0, "raise", None))
        other.start()
        granted = f"{queue}.granted"
        until_now(lambda: published(worker, granted) == 1, "another one wakes it", patience=10.0)
        other.close()


def test_a_task_that_waits_does_not_expire_with_the_worker_that_parked_it(
    worker: Any, limiter: WorkerLimiter, store: MemoryStore
) -> None:
    app = worker.app
    with SyncLimiter(store) as operator:
        holder = operator.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        app.send_task("one", expires=3600)
        received(worker, limiter, app.conf.task_default_queue)
        limiter.close()
        key = operator.inspect("user=eve")
        assert key.waiting + sum(each.waiting for each in key.dormant) == 1
        holder.release()


@pytest.mark.parametrize("how", ["revoked", "expires"])
@pytest.mark.parametrize("slow", ["to be ended", "to be reported"])
def test_tasks_that_are_not_to_run_delay_no_others(
    worker: Any,
    limiter: WorkerLimiter,
    store: MemoryStore,
    *,
    how: str,
    slow: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be thousands in one instant."""
    app, face = worker.app, store.sync_face()
    queue = app.conf.task_default_queue
    began, may_go_on = threading.Event(), threading.Event()
    swept = threading.Semaphore(0)
    sweep = face.sweep

    def go_slowly(*_: object, **__: object) -> None:
        began.set()
        assert may_go_on.wait(30.0)

    def count(*given: Any) -> None:
        sweep(*given)
        swept.release()

    owner: Any = face if slow == "to be ended" else Request
    name = "evict_waiter" if slow == "to be ended" else "announce_revoked"
    monkeypatch.setattr(owner, name, go_slowly)
    monkeypatch.setattr(face, "sweep", count)
    with SyncLimiter(store) as operator:
        holders = [
            operator.acquire(ConcurrencyLimit("user"), {"user": user}) for user in ("eve", "bob")
        ]
        options = {"expires": 0.5} if how == "expires" else {}
        app.send_task("one", ("eve",), **options)
        gone = received(worker, limiter, queue)
        app.send_task("late", ("bob",))
        received(worker, limiter, queue)
        if how == "revoked":
            limiter._revokes.revoke({gone.id})
        assert began.wait(30.0)
        while swept.acquire(blocking=False):
            pass
        assert swept.acquire(timeout=30.0), "it sweeps"
        for holder in holders:
            holder.release()
        granted = f"{queue}.granted"
        until_now(lambda: published(worker, granted) > 0, "the other is published", patience=10.0)
        may_go_on.set()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_granted_task_that_has_no_limits_any_more_leaves_the_line_and_runs_once(
    worker: Any, limiter: WorkerLimiter, store: MemoryStore, earlier: bool
) -> None:
    """Also if an earlier release published its message: that did not name what it published."""
    app = worker.app
    queue = app.conf.task_default_queue
    granted = f"{queue}.granted"
    with SyncLimiter(store) as operator:
        holder = operator.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        app.send_task("late")
        received(worker, limiter, queue)
        holder.release()
        until_now(lambda: published(worker, granted) == 1, "it is published", patience=10.0)
        limiter._granted.requests = RequestFactory(
            worker.consumer
        )  # as in a release without its limits
        with app.connection_for_write() as connection:
            message = app.amqp.queues[granted](connection.default_channel).get()
            if earlier:
                del message.headers[PUBLICATION]
            headers = dict(message.headers)
            assert limiter.on_message(message)
            assert not message.acknowledged
            assert not {*HEADERS} & {*message.headers}, "a retry would send them along"
            until_now(lambda: operator.inspect("user=eve").in_use == 0, "it left", patience=10.0)
            message.headers = dict(headers)
            message.delivery_info["redelivered"] = True
            assert limiter.on_message(message), "the worker that had it may have died"
            message.headers = dict(headers)
            message.delivery_info["redelivered"] = False
            assert not limiter.on_message(message), "a copy"
            assert message.acknowledged
