"""Tasks that waited, and are not to run, are reported as REVOKED."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from celery import signals, states

from limiter_celery import ConcurrencyLimit
from limiter_celery._granted_messages import GrantedMessages
from limiter_celery._parked_message import ParkedMessage, parked_message_of
from limiter_celery._refusal_reasons import Reason
from limiter_celery._refusals import REPORTED_FOR, Refusals
from limiter_celery._request_factory import RequestFactory
from limiter_celery._scheduler import Scheduler
from limiter_core import StoreUnavailable, SyncLimiter
from limiter_core.arguments import ArgumentView
from limiter_core.jobs import Job, Waiting, error_of
from limiter_core.requests import Notice
from tests.redis._tools import until_now

from ._parts import NAME, Parts


@pytest.fixture
def refusals(parts: Parts) -> Refusals:
    return parts.make_refusals(RequestFactory(parts.consumer))


@pytest.fixture
def granted(parts: Parts, refusals: Refusals) -> GrantedMessages:
    return GrantedMessages(
        app=parts.app,
        requests=refusals.requests,
        markers=parts.markers,
        refusals=refusals,
        gate=parts.gate,
        scheduler=parts.scheduler,
    )


@pytest.fixture
def message(parts: Parts) -> ParkedMessage:
    return parked_message_of(parts.receive("one"))


def delivered(parts: Parts) -> Any:
    """Return the message that waits in the queue of granted tasks."""
    queue = f"{parts.app.conf.task_default_queue}.granted"
    message = parts.app.amqp.queues[queue](parts.channel).get()
    assert message is not None
    return message


@pytest.fixture
def expired() -> Any:
    """Whether each task that is reported is reported as expired."""
    seen: list[bool] = []

    def on_revoked(expired: bool, **_: object) -> None:
        seen.append(expired)

    signals.task_revoked.connect(on_revoked)
    yield seen
    signals.task_revoked.disconnect(on_revoked)


def wait(parts: Parts, message: ParkedMessage) -> None:
    """Have a task wait for the slot."""
    job = Job("ticket", ConcurrencyLimit("user"), ArgumentView({"user": "eve"}), message.pack())
    assert isinstance(parts.gate.admit(job), Waiting)


def evicted(parts: Parts, message: ParkedMessage, reason: Reason | None) -> Notice:
    """Return the notice of a task that waited, and is not to run."""
    with SyncLimiter(parts.store) as limiter:
        holder = limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        wait(parts, message)
        if reason is not None:
            parts.reasons.note("ticket", reason)
        assert parts.tickets.evict_waiter("ticket")
        holder.release()
    return parts.notices[-1]


def report(refusals: Refusals, notice: Notice) -> None:
    error = error_of(notice)
    assert error is not None
    refusals.report_later(notice, error)


REASONS = {
    "expired": "expired",
    "revoked": "revoked",
    "timeout": "timed out waiting for 'user=eve': 1 of 1 slots in use",
    None: "an operator ended the waiting of this call for 'user=eve'",
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("limited", [True, False])
def test_a_task_that_this_worker_has_is_reported_at_once(
    parts: Parts, refusals: Refusals, limited: bool, reason: Reason | None, expired: list[bool]
) -> None:
    if limited:
        refusals.requests.add(parts.app.tasks["one"], parts.request_class)
    request = parts.receive("one")
    report(refusals, evicted(parts, parked_message_of(request), reason))
    parts.finish()
    assert parts.state_of(request) == states.REVOKED
    assert str(parts.app.AsyncResult(request.id).result) == REASONS[reason]
    assert parts.markers.age("ticket") is not None
    assert parts.published() == 0
    assert expired == [reason == "expired"]
    assert parts.tickets.inspect(f"{NAME}:reasons").in_use == 0


@pytest.mark.parametrize(
    ("limited", "reason"), [(True, "expired"), (False, "expired"), (False, "timeout")]
)
def test_a_task_that_this_worker_does_not_have_is_reported_by_one_that_does(
    parts: Parts, granted: GrantedMessages, limited: bool, reason: Reason, expired: list[bool]
) -> None:
    refusals, message = granted.refusals, parked_message_of(parts.receive("one"))
    task = parts.app.tasks.pop("one")
    report(refusals, evicted(parts, message, reason))
    parts.finish()
    again = delivered(parts)
    parts.app.tasks["one"] = task
    if limited:
        refusals.requests.add(task, parts.request_class)
    assert not granted.is_to_run(again)
    assert again.acknowledged
    result = parts.app.AsyncResult(message.headers["id"])
    assert result.state == states.REVOKED
    assert str(result.result) == REASONS[reason]
    assert parts.markers.age(f"{message.headers['id']}:0:0") is not None
    assert expired == [reason == "expired"]


@pytest.mark.parametrize("away", ["backend", "store"])
def test_a_report_that_fails_is_made_again_and_withdrawn(
    parts: Parts,
    refusals: Refusals,
    away: str,
    monkeypatch: pytest.MonkeyPatch,
    expired: list[bool],
) -> None:
    """Once only, by the worker that began with it."""
    request = parts.receive("one")
    withdrawn: list[str] = []
    withdraw = parts.tickets.withdraw

    def note(ticket: str, keys: Sequence[str]) -> bool:
        withdrawn.append(ticket)
        return withdraw(ticket, keys)

    notice = evicted(parts, parked_message_of(request), "revoked")

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise StoreUnavailable("it is away") if away == "store" else ConnectionError

    if away == "backend":
        monkeypatch.setattr(parts.app.tasks["one"].backend, "store_result", fail)
    else:
        monkeypatch.setattr(refusals.reports, "add_for", fail)
    parts.tickets.withdraw = note
    report(refusals, notice)
    parts.scheduler.start()

    def is_forgotten() -> bool:
        return bool(withdrawn) and parts.tickets.inspect(f"{NAME}:reasons").in_use == 0

    until_now(is_forgotten, "it was reported, and is forgotten")
    assert parts.state_of(request) == states.REVOKED
    assert expired == [False]
    assert withdrawn == ["ticket"]


@pytest.mark.parametrize("sent_again", [False, True])
def test_a_task_that_another_worker_reported_meanwhile_is_not_reported_again(
    parts: Parts, refusals: Refusals, expired: list[bool], sent_again: bool
) -> None:
    """A worker that has thousands to report comes to it late: perhaps it waits for a slot anew."""
    message = parked_message_of(parts.receive("one"))
    notice = evicted(parts, message, "expired")
    report(refusals, notice)
    parts.finish()
    assert expired == [True]
    parts.clock.advance(REPORTED_FOR + 1.0)
    with SyncLimiter(parts.store) as limiter:
        holder = limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        if sent_again:
            wait(parts, message)
        refusals.scheduler = late = Scheduler("late")
        report(refusals, notice)
        late.start()
        late.stop(10.0)
        assert limiter.inspect("user=eve").waiting == int(sent_again)
        holder.release()
    assert expired == [True]


def test_a_refused_message_is_acknowledged_when_its_task_is_reported(
    parts: Parts,
    granted: GrantedMessages,
    message: ParkedMessage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backend is away at first; the worker goes on."""
    message.refused("evicted").publish(parts.app)
    again = delivered(parts)
    backend = parts.app.tasks["one"].backend

    def away(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise ConnectionError("the backend is away")

    monkeypatch.setattr(backend, "store_result", away)
    assert not granted.is_to_run(again)
    assert not again.acknowledged
    parts.finish()
    parts.main_loop.run_pending()
    assert again.acknowledged
    assert parts.app.AsyncResult(message.headers["id"]).state == states.REVOKED


def test_a_refused_message_of_a_connection_that_broke_is_left_to_the_next_one(
    parts: Parts,
    granted: GrantedMessages,
    message: ParkedMessage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message.refused("evicted").publish(parts.app)
    again = delivered(parts)

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("the backend is away")

    monkeypatch.setattr(parts.app.tasks["one"].backend, "store_result", away)
    assert not granted.is_to_run(again)
    monkeypatch.undo()
    parts.worker.connection += 1
    parts.finish()
    parts.main_loop.run_pending()
    assert not again.acknowledged
    assert parts.app.AsyncResult(message.headers["id"]).state == states.PENDING
