"""A granted task claims its slot when it is received; if it cannot start in time, it moves on."""

from __future__ import annotations

from typing import Any

import pytest
from celery.worker import state
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from limiter_celery._admission_hook import AdmissionHook
from limiter_celery._parked_message import parked_message_of

from ._parts import Parts

KEY = "user=eve"


@pytest.fixture
def semaphore() -> LaxBoundedSemaphore:
    """Of a pool of one process."""
    return LaxBoundedSemaphore(1)


@pytest.fixture
def hook(parts: Parts, semaphore: LaxBoundedSemaphore) -> AdmissionHook:
    def process(request: Any) -> None:
        semaphore.acquire(parts.consumer.processed.append, request)

    return AdmissionHook(
        app=parts.app,
        process=process,
        timer=parts.consumer.timer,
        semaphore=semaphore,
        claim=30.0,
        admission=parts.admission,
        releases=parts.releases,
        main_loop=parts.main_loop,
        scheduler=parts.scheduler,
    )


def granted(parts: Parts, *args: Any) -> Any:
    parked_message_of(parts.receive("late", *args)).publish(parts.app)
    return parts.receive(None)


def test_a_task_that_did_not_wait_is_processed_and_asks_later(
    parts: Parts, hook: AdmissionHook
) -> None:
    request = parts.receive("one")
    hook(request)
    assert parts.consumer.processed == [request]
    assert request.delivery.lease is None


def test_a_granted_task_claims_its_slot_before_a_process_is_free(
    parts: Parts, hook: AdmissionHook
) -> None:
    hook(parts.receive("one", "busy"))
    request = granted(parts)
    hook(request)
    assert request not in parts.consumer.processed
    assert parts.tickets.inspect(KEY).in_use == 1


def test_a_granted_task_gets_the_next_process(
    parts: Parts, hook: AdmissionHook, semaphore: LaxBoundedSemaphore
) -> None:
    hook(parts.receive("one", "busy"))
    waits = parts.receive("one", "adam")
    hook(waits)
    request = granted(parts)
    hook(request)
    semaphore.release()
    assert parts.consumer.processed[-1] is request
    semaphore.release()
    assert parts.consumer.processed[-1] is waits


def test_a_granted_task_that_may_not_run_is_not_processed(
    parts: Parts, hook: AdmissionHook
) -> None:
    parts.admission.admit(parts.receive("one"))
    request = granted(parts)
    hook(request)
    assert request not in parts.consumer.processed
    assert parts.tickets.inspect(KEY).waiting == 1


def test_a_task_that_cannot_start_in_time_is_published_again(
    parts: Parts, hook: AdmissionHook
) -> None:
    hook(parts.receive("one", "busy"))
    request = granted(parts)
    hook(request)
    parts.run_timer()
    assert parts.tickets.inspect(KEY).in_use == 0
    assert request.delivery.handed_over
    assert request not in state.reserved_requests
    parts.finish()
    assert parts.published() == 1
    assert not request.message.acknowledged
    parts.main_loop.run_pending()
    assert request.message.acknowledged


def test_a_task_that_has_started_is_left_alone(parts: Parts, hook: AdmissionHook) -> None:
    request = granted(parts)
    hook(request)
    assert request.delivery.submit()
    parts.run_timer()
    assert parts.tickets.inspect(KEY).in_use == 1
    parts.finish()
    assert parts.published() == 0
