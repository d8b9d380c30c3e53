"""What asyncio and trio do differently here: which task runs, how to reach its loop from outside.

(anyio has both, but `get_current_task` describes the task at some cost, and `from_thread.run_sync`
waits for the loop, which a store's step must not.)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio


class Event(Protocol):
    """One wake-up for one waiter. (anyio's events do more; here each microsecond is a waiter's.)"""

    def set(self) -> object:
        """Wake whoever waits."""
        ...

    def wait(self) -> Awaitable[object]:
        """Wait for `set`."""
        ...


class _FutureEvent:
    """asyncio's own event, without the queue of waiters."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        return self._future


class Guard(Protocol):
    """Stands ready to cancel the body of one hold, from its first to its last line."""

    def interrupt(self) -> None:
        """Cancel the body. From the body's own event loop."""
        ...

    def close(self, error: BaseException | None) -> bool:
        """End the guard, with what came out of the body; whether that is our cancellation."""
        ...


class _AsyncioGuard:
    """Cancels as `asyncio.timeout` does: the task, once, and takes it back at the end.

    (A cancel scope would do, but costs every call a fifth of its time for what happens to few.)
    """

    __slots__ = ("_cancelling", "_interrupted", "_open", "_task", "_timer")

    def __init__(
        self, task: asyncio.Task[Any], seconds: float | None, lapse: Callable[[], None]
    ) -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self._open = True
        self._interrupted = False
        self._timer = None
        if seconds is not None:
            self._timer = task.get_loop().call_later(seconds, lapse)

    def interrupt(self) -> None:
        # Soon, not now: then the task stands at an await of its body, or is past it. A task that
        # cancels itself would else carry the cancellation out of a body that awaits no more.
        self._task.get_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._open and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def close(self, error: BaseException | None) -> bool:
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        if not self._interrupted:
            return False
        # Somebody else may have cancelled the task as well: then it stays cancelled.
        return self._task.uncancel() <= self._cancelling and isinstance(
            error, asyncio.CancelledError
        )


class _TrioGuard:
    """Cancels by a cancel scope, as anything in trio."""

    __slots__ = ("_lapse", "_scope")

    def __init__(self, seconds: float | None, lapse: Callable[[], None]) -> None:
        self._scope = anyio.CancelScope()
        self._lapse = lapse
        if seconds is not None:
            self._scope.deadline = anyio.current_time() + seconds
        self._scope.__enter__()

    def interrupt(self) -> None:
        self._scope.cancel()

    def close(self, error: BaseException | None) -> bool:
        kind = None if error is None else type(error)
        self._scope.__exit__(kind, error, None if error is None else error.__traceback__)
        if self._scope.cancelled_caught:
            self._lapse()  # unless the loss was known before: then this changes nothing
        return self._scope.cancelled_caught


def new_guard(
    task: Any, trio_token: Any, seconds: float | None, lapse: Callable[[], None]
) -> Guard:
    """Return a guard for the body that the running task now begins.

    Args:
        task: the running task.
        trio_token: trio's token, None in asyncio.
        seconds: how long the body may take, None for any time.
        lapse: is called when it takes longer.
    """
    if trio_token is None:
        return _AsyncioGuard(task, seconds, lapse)
    return _TrioGuard(seconds, lapse)


def running_task() -> tuple[Any, Any]:
    """Return the running task, and trio's token if the loop is trio's."""
    try:
        return asyncio.current_task(), None
    except RuntimeError:  # no asyncio loop runs in this thread, so it is trio's
        lowlevel = sys.modules["trio"].lowlevel
        return lowlevel.current_task(), lowlevel.current_trio_token()


def new_event(trio_token: Any) -> Event:
    """Return an event for the running loop."""
    if trio_token is None:
        return _FutureEvent()
    event: Event = sys.modules["trio"].Event()
    return event


def call_soon(task: Any, trio_token: Any, function: Callable[[], object]) -> None:
    """Have a function called in a task's event loop, from another thread.

    Raises:
        RuntimeError: that loop has ended.
    """
    if trio_token is None:
        task.get_loop().call_soon_threadsafe(function)
    else:
        trio_token.run_sync_soon(function)
