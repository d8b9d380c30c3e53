"""From any thread into the main loop: an event loop, or a timer where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from limiter_celery._main_loop import MainLoop


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def main_loop() -> Iterator[MainLoop]:
    main_loop = MainLoop()
    yield main_loop
    main_loop.close()


def test_a_function_of_another_thread_runs_in_the_event_loop(main_loop: MainLoop, hub: Hub) -> None:
    main_loop.connect(hub, Timer())
    ran_in: list[threading.Thread] = []
    main_loop.call_soon(lambda: ran_in.append(threading.current_thread()))
    other = threading.Thread(
        target=main_loop.call_soon, args=(lambda: ran_in.append(threading.current_thread()),)
    )
    other.start()
    other.join()
    assert ran_in == []
    hub.run_once()
    assert ran_in == [threading.current_thread()] * 2


def test_an_event_loop_that_was_emptied_is_used_again(main_loop: MainLoop, hub: Hub) -> None:
    """Celery removes all readers when it connects anew."""
    ran: list[str] = []
    for number in ("first", "second"):
        main_loop.connect(hub, Timer())
        main_loop.call_soon(lambda number=number: ran.append(number))
        next(hub.create_loop())
        hub.reset()
    assert ran == ["first", "second"]


def test_more_than_a_socket_takes_is_run_all_the_same(main_loop: MainLoop, hub: Hub) -> None:
    main_loop.connect(hub, Timer())
    ran: list[int] = []
    for number in range(100_000):
        main_loop.call_soon(lambda number=number: ran.append(number))
    hub.run_once()
    assert ran == list(range(100_000))


def test_without_an_event_loop_the_timer_runs_it(main_loop: MainLoop) -> None:
    timer = Timer()
    ran: list[str] = []
    main_loop.call_soon(lambda: ran.append("before there was a connection"))
    main_loop.connect(None, timer)
    main_loop.call_soon(lambda: ran.append("after"))
    for each in list(timer.queue):
        each.entry()
    assert ran == ["before there was a connection", "after"]


def test_what_a_function_raises_is_logged(
    main_loop: MainLoop, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    main_loop.call_soon(lambda: 1 / 0)
    main_loop.call_soon(lambda: ran.append("next"))
    main_loop.run_pending()
    assert ran == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_a_function_that_asks_for_another_does_not_keep_the_loop_busy(main_loop: MainLoop) -> None:
    ran: list[str] = []

    def ask() -> None:
        ran.append("asked")
        main_loop.call_soon(ask)

    main_loop.call_soon(ask)
    main_loop.run_pending()
    assert ran == ["asked"]
