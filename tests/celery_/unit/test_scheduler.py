"""What may take long is done in a thread of its own: in the order of time, and to the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from limiter_celery._scheduler import Scheduler


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler("unit")
    yield scheduler
    scheduler.stop(10.0)


def finish(scheduler: Scheduler) -> None:
    scheduler.start()
    scheduler.stop(10.0)


def test_functions_run_in_the_order_of_their_times(scheduler: Scheduler) -> None:
    ran: list[str] = []
    scheduler.call_later(60.0, lambda: ran.append("last"))
    scheduler.call_later(30.0, lambda: ran.append("second"))
    scheduler.call_soon(lambda: ran.append("first"))
    finish(scheduler)
    assert ran == ["first", "second", "last"], "also those whose time has not come"


def test_a_function_runs_in_the_thread_of_the_scheduler(scheduler: Scheduler) -> None:
    ran = threading.Event()
    names: list[str] = []
    scheduler.start()
    scheduler.call_soon(lambda: names.append(threading.current_thread().name))
    scheduler.call_later(0.01, ran.set)
    assert ran.wait(10.0)
    assert names == ["unit"]


def test_a_function_that_raises_is_logged_and_the_next_one_runs(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    scheduler.call_soon(lambda: 1 / 0)
    scheduler.call_soon(lambda: ran.append("next"))
    finish(scheduler)
    assert ran == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_at_the_end_what_is_bound_to_its_time_may_be_forgotten(scheduler: Scheduler) -> None:
    ran: list[str] = []
    scheduler.call_later(60.0, lambda: ran.append("late"))
    scheduler.call_soon(lambda: ran.append("due"))
    scheduler.start()
    scheduler.stop(10.0, early=False)
    assert ran == ["due"]


def test_after_the_end_nothing_is_run(scheduler: Scheduler) -> None:
    ran: list[str] = []
    finish(scheduler)
    scheduler.call_soon(lambda: ran.append("late"))
    scheduler.stop(10.0)
    assert ran == []
