"""Work in a thread of its own, which is waited for until a deadline and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from limiter_core.signal_errors import reraise_if_of_signal
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, are_green, new_lock
from limiter_redis.connection.deadlines import NoAnswer


def within(work: Callable[[], Any], undo: Callable[[Any], object], deadline: float) -> Any:
    """Return what some work returns, done in another thread, if that is before a deadline.

    Where it is later, it is undone.
    """
    if are_green():
        return work()
    opening = BackgroundCall(work, undo)
    opening.begin()
    return opening.result(deadline)


class BackgroundCall:
    """Some work in another thread, and the wait for it.

    Green threads would have to be those of the caller's own event loop: there it is done in the
    caller's, and only the connection's own settings bound each step of it.

    Args:
        work: what to do.
        undo: is given what came of it, if it is not waited for any more.
    """

    def __init__(self, work: Callable[[], Any], undo: Callable[[Any], object]) -> None:
        self._work = work
        self._undo = undo
        self._lock = new_lock()
        self._done = SystemEvent()
        self._given_up = False
        self._value: Any = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Begin with it."""
        if are_green():
            self.run()
            return
        try:
            threading.Thread(target=self.run, name="limiter-connect", daemon=True).start()
        except RuntimeError:  # the process ends, and no thread can begin
            reraise_if_of_signal()
            self.run()

    def is_done(self, seconds: float) -> bool:
        """Wait for it, at most so many seconds; whether it is done."""
        return self._done.wait(seconds)

    def run(self) -> None:
        """Do it."""
        try:
            value = self._work()
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            self._error = error
            self._done.set()
            return
        with self._lock:
            self._value = value
            self._done.set()
            if not self._given_up:
                return
        self._undo(value)

    def result(self, deadline: float) -> Any:
        """Wait for it."""
        try:
            in_time = self._done.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            self.give_up()
            raise
        if not in_time and self._give_up():
            raise NoAnswer("Timeout connecting to server")
        if self._error is not None:
            raise self._error
        return self._value

    def give_up(self) -> None:
        """Have it undone, now or when it is done."""
        if not self._give_up() and self._error is None:
            self._undo(self._value)

    def _give_up(self) -> bool:
        """Have it undone; whether it was not done before."""
        with self._lock:
            self._given_up = True
            return not self._done.is_set()
