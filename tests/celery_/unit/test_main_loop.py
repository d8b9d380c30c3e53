"""From any thread into the main loop: an event loop, or a timer where there is none."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from limiter_celery._main_loop import MainLoop

GREEN = """
import threading
from kombu.asynchronous.timer import Timer
from limiter_celery._main_loop import MainLoop

main_loop, has_run = MainLoop(), threading.Event()
main_loop.connect(None, Timer())
main_loop.call_soon(has_run.set)
assert has_run.wait(10.0), "it does not run"
(reader,) = (each for each in threading.enumerate() if each.name == "limiter-main")
main_loop.close()
reader.join(10.0)
assert not reader.is_alive(), "the greenlet that reads goes on"
main_loop.call_soon(print)
"""


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


@pytest.mark.parametrize(
    "patch", ["gevent.monkey.patch_all", "eventlet.monkey_patch"], ids=["gevent", "eventlet"]
)
def test_its_greenlet_ends_quietly_when_it_is_closed(patch: str) -> None:
    module, _, function = patch.rpartition(".")
    script = f"from {module} import {function}\n{function}()\n{GREEN}"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
