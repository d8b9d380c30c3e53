"""A granted task is delivered here if it can start at once, else published for any worker."""

from __future__ import annotations

from typing import Any

import pytest
from celery import signals, states
from celery.bootsteps import CLOSE
from celery.exceptions import TaskRevokedError
from celery.worker import state

from limiter_celery._delivery import job_of
from limiter_celery._dispatcher import Dispatcher
from limiter_celery._publisher import Publisher
from limiter_celery._request_factory import RequestFactory
from limiter_core import events, observe
from limiter_core.jobs import Waiting
from tests.core._events import EventRecorder

from ._parts import NAME, Parts

KEY = "user=eve"


@pytest.fixture
def dispatcher(parts: Parts) -> Dispatcher:
    requests = RequestFactory(parts.consumer)
    for name in ("one", "late", "latest"):
        requests.add(parts.app.tasks[name], parts.request_class)
    parts.revocations.load()
    return Dispatcher(
        consumer=parts.consumer,
        gate=parts.gate,
        claim=30.0,
        requests=requests,
        revocations=parts.revocations,
        parked_tasks=parts.parked_tasks,
        publisher=Publisher(parts.app, parts.scheduler, parts.gate),
        refusals=parts.make_refusals(requests),
        main_loop=parts.main_loop,
        worker=parts.worker,
    )


def park(parts: Parts, name: str) -> str:
    """Have a task wait; return its id."""
    request = parts.receive(name)
    job = job_of(request)
    assert job is not None
    outcome = parts.gate.admit(job)
    assert isinstance(outcome, Waiting)
    parts.parked_tasks.add(request, job, outcome)
    request.acknowledge()
    state.task_ready(request)
    return request.id


def dispatch(parts: Parts, dispatcher: Dispatcher, name: str) -> str:
    """Have a task wait, and be granted in a step of this process; return its id."""
    holder = parts.receive(name)
    parts.admission.admit(holder)
    task_id = park(parts, name)
    state.task_ready(holder)
    parts.releases.on_end(holder)
    (notice,) = parts.notices
    with parts.worker.own_step():
        dispatcher.dispatch(notice)
    return task_id


def test_a_task_is_delivered_here_without_the_broker(parts: Parts, dispatcher: Dispatcher) -> None:
    task_id = dispatch(parts, dispatcher, "one")
    assert parts.consumer.processed == []
    parts.main_loop.run_pending()
    (request,) = parts.consumer.processed
    assert request.id == task_id
    assert request.delivery.is_local
    assert request.delivery.has_slot()
    assert request.request_dict["limiter_fencing_token"] > 0
    assert request in state.reserved_requests
    assert dispatcher.has_any(), "it may have been given to a child that has ended"
    request.delivery.finish()
    assert not dispatcher.has_any()
    parts.finish()
    assert parts.published() == 0


def test_a_task_whose_notice_is_repeated_runs_once(parts: Parts, dispatcher: Dispatcher) -> None:
    """To a worker that has just come: a notice may have been sent while none was there."""
    parts.consumer.pool.limit = 3
    dispatch(parts, dispatcher, "one")
    (notice,) = parts.notices
    park(parts, "one")
    with parts.worker.own_step():
        dispatcher.dispatch(notice)
    dispatcher.dispatch(notice)
    parts.main_loop.run_pending()
    first, second = parts.consumer.processed
    parts.admission.admit(first)
    parts.finish()
    published = parts.receive(None)
    for copy in (second, published):
        with pytest.raises(TaskRevokedError):  # the first is about to start
            parts.admission.admit(copy)
    assert not published.message.acknowledged, "the first may die before that"
    assert parts.tickets.inspect(KEY).waiting == 1, "the slot is the first one's all the time"
    parts.releases.on_start(first)
    assert parts.tickets.inspect(KEY).in_use == 1
    state.task_ready(first)
    parts.releases.on_end(first)
    with pytest.raises(TaskRevokedError):  # it has run
        parts.admission.admit(published)
    assert published.message.acknowledged
    assert parts.tickets.inspect(KEY).waiting == 0, "the next one has its turn"


def test_a_published_task_starts_before_a_local_one_of_the_same_grant(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    parts.consumer.pool.limit = 3
    dispatch(parts, dispatcher, "one")
    (notice,) = parts.notices
    dispatcher.dispatch(notice)
    parts.main_loop.run_pending()
    (local,) = parts.consumer.processed
    parts.finish()
    published = parts.receive(None)
    parts.admission.admit(published)
    with pytest.raises(TaskRevokedError):
        parts.admission.admit(local)
    assert local not in state.reserved_requests
    assert parts.tickets.inspect(KEY).in_use == 1
    parts.releases.on_end(published)


def test_a_task_that_is_acknowledged_late_goes_through_the_broker(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    dispatch(parts, dispatcher, "late")
    parts.finish()
    assert parts.published() == 1


def test_a_grant_of_another_process_goes_through_the_broker(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    """All workers may be notified of it."""
    holder = parts.receive("one")
    parts.admission.admit(holder)
    park(parts, "one")
    state.task_ready(holder)
    parts.releases.on_end(holder)
    dispatcher.dispatch(parts.notices[0])
    parts.finish()
    assert parts.published() == 1


@pytest.mark.parametrize("reason", ["busy", "closing", "not running", "unknown revokes"])
def test_a_worker_that_cannot_start_it_at_once_leaves_it_to_others(
    parts: Parts, dispatcher: Dispatcher, reason: str
) -> None:
    if reason == "busy":
        busy = parts.receive("one", "adam")
        assert busy in state.reserved_requests
    elif reason == "closing":
        parts.worker.closing = True
    elif reason == "not running":
        parts.consumer.blueprint.state = CLOSE
    else:
        parts.revocations.loaded = False
    dispatch(parts, dispatcher, "one")
    parts.main_loop.run_pending()
    assert parts.consumer.processed == []
    parts.finish()
    assert parts.published() == 1


def test_a_worker_that_became_busy_meanwhile_leaves_it_to_others(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    dispatch(parts, dispatcher, "one")
    busy = parts.receive("one", "adam")
    assert busy in state.reserved_requests
    parts.main_loop.run_pending()
    assert parts.consumer.processed == []
    parts.finish()
    assert parts.published() == 1


def test_what_was_delivered_here_and_did_not_start_is_handed_over(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    dispatch(parts, dispatcher, "one")
    parts.main_loop.run_pending()
    (request,) = parts.consumer.processed
    dispatcher.hand_over()
    dispatcher.hand_over()
    assert not request.delivery.submit()
    parts.finish()
    assert parts.published() == 1


def test_what_is_in_the_pool_is_not_handed_over(parts: Parts, dispatcher: Dispatcher) -> None:
    dispatch(parts, dispatcher, "one")
    parts.main_loop.run_pending()
    (request,) = parts.consumer.processed
    assert request.delivery.submit()
    dispatcher.hand_over()
    parts.finish()
    assert parts.published() == 0


def test_a_request_that_is_gone_before_it_started_is_published(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    """The connection to the broker broke, and Celery forgot what it had received."""
    dispatch(parts, dispatcher, "one")
    parts.main_loop.run_pending()
    state.task_ready(parts.consumer.processed.pop())
    parts.finish()
    assert parts.published() == 1


def test_a_waiting_task_that_is_not_to_run_is_revoked(parts: Parts, dispatcher: Dispatcher) -> None:
    parts.admission.admit(parts.receive("latest"))
    older = park(parts, "latest")
    park(parts, "latest")
    (notice,) = parts.notices
    dispatcher.dispatch(notice)
    parts.finish()
    assert parts.app.AsyncResult(older).state == states.REVOKED
    assert parts.markers.age(notice.id) is not None
    assert parts.published() == 0
    parts.parked_tasks.revoke({older})
    assert parts.notices == [notice], "it is forgotten"


def test_a_task_whose_waiting_is_over_is_forgotten(parts: Parts, dispatcher: Dispatcher) -> None:
    """When it waits again, by another worker, a revoke that comes here leaves it alone."""
    holder = parts.receive("one")
    parts.admission.admit(holder)
    request = parts.receive("one")
    job = job_of(request)
    assert job is not None
    outcome = parts.gate.admit(job)
    assert isinstance(outcome, Waiting)
    parts.parked_tasks.add(request, job, outcome)
    assert parts.tickets.evict_waiter(job.ticket)
    (notice,) = parts.notices
    dispatcher.dispatch(notice)
    parts.gate.drop(job.ticket)
    assert isinstance(parts.gate.admit(job), Waiting)
    parts.parked_tasks.revoke({request.id})
    assert parts.notices == [notice]
    assert parts.tickets.inspect("user=eve").waiting == 1


def test_a_refused_task_is_reported_by_one_of_the_workers_that_are_told(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    """One that sweeps is notified as well, until the refusal is withdrawn."""
    seen = EventRecorder()
    revoked: list[str] = []

    def on_revoked(request: Any, **_: object) -> None:
        revoked.append(request.id)

    remove = observe(seen)
    signals.task_revoked.connect(on_revoked)
    try:
        parts.admission.admit(parts.receive("latest"))
        task_id = park(parts, "latest")
        park(parts, "latest")
        (notice,) = parts.notices
        dispatcher.dispatch(notice)
        dispatcher.dispatch(notice)
        parts.finish()
        assert seen.one(events.Refused).reason == "superseded"
        assert revoked == [task_id]
        assert parts.tickets.inspect(f"{NAME}:reports").in_use == 1
    finally:
        remove()
        signals.task_revoked.disconnect(on_revoked)
