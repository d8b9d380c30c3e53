"""Deliveries that are tried again: they do not count against the prefetch meanwhile."""

from __future__ import annotations

from celery.worker import state

from limiter_celery._deferred_deliveries import _UNCOUNTED

from ._parts import Parts


def test_a_delivery_is_tried_again_and_counts_against_no_prefetch_meanwhile(parts: Parts) -> None:
    request = parts.receive("one")
    parts.deferred.retry_later(request, 60.0)
    parts.main_loop.run_pending()
    assert request not in state.reserved_requests
    assert parts.consumer.qos.value == 5
    assert parts.consumer.processed == []
    parts.run_timer()
    assert parts.consumer.qos.value == 4
    assert parts.consumer.processed == [request]
    assert request in state.reserved_requests
    assert not request.message.acknowledged


def test_more_of_them_keep_the_worker_from_taking_further_messages(parts: Parts) -> None:
    request = parts.receive("one")
    for _ in range(_UNCOUNTED + 10):
        parts.deferred.retry_later(request, 60.0)
    parts.main_loop.run_pending()
    assert parts.consumer.qos.value == 4 + _UNCOUNTED
    parts.run_timer()
    assert parts.consumer.qos.value == 4
    assert len(parts.consumer.processed) == _UNCOUNTED + 10


def test_what_came_by_a_connection_that_is_gone_is_not_tried_again(parts: Parts) -> None:
    parts.deferred.retry_later(parts.receive("one"), 60.0)
    parts.main_loop.run_pending()
    parts.deferred.retry_later(parts.receive("one"), 60.0)
    parts.worker.connection += 1
    parts.deferred.forget_all()
    parts.main_loop.run_pending()
    parts.run_timer()
    assert parts.consumer.processed == []


def test_a_worker_that_is_about_to_end_tries_none(parts: Parts) -> None:
    parts.deferred.retry_later(parts.receive("one"), 60.0)
    parts.main_loop.run_pending()
    parts.worker.closing = True
    parts.run_timer()
    assert parts.consumer.processed == []
