"""A call in an event loop: how asyncio and trio wake a waiter, and cancel a body.

anyio could do both, at a price: here each microsecond is paid by every call. The little that
differs stands in `AsyncioCall` and `TrioCall`; nothing else in the package knows which loop runs.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from limiter_core._call import Call
from limiter_core.limits import Terms
from limiter_core.requests import Answer, Loss


class AsyncCall(Call):
    """What the calls of both loops have in common."""

    guarded = False
    """True while a body runs that is to be cancelled when the lease is lost."""
    _news = False
    _wake: Callable[[], object] | None = None

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float]) -> None:
        super().__init__(owner, terms, now)
        self._thread = threading.get_ident()

    def expect_news(self) -> None:
        """Count as news only what comes from now on."""
        self._news = False

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until the store says that asking again is worth it; at most so many seconds."""
        self._wake, wait = self._new_event()
        # In this order: `look_again` notes the news before it looks for somebody to wake.
        if not self._news:
            if seconds == math.inf:
                await wait()
            else:
                with anyio.move_on_after(seconds):
                    await wait()
        self._wake = None

    def look_again(self, answer: Answer | None = None) -> bool:
        """Wake the waiter; whether its event loop is still there."""
        self.delivered = answer
        self._news = True
        wake = self._wake
        return wake is None or self._in_loop(wake)

    def interrupt(self) -> None:
        """Cancel the body of a `hold`."""
        if self.guarded:
            self._in_loop(self._cancel_body)

    def guard_body(self) -> None:
        """Have the body, which begins now, cancelled when the lease is lost."""
        self._open_guard()
        self.guarded = True
        # In this order: `lease_lost` notes the loss before it looks for a body.
        if self.loss is not None:
            self.interrupt()

    def unguard_body(self, error: BaseException | None) -> bool:
        """Leave the body alone; whether what came out of it is the cancellation for a loss."""
        if not self.guarded:
            return False
        self.guarded = False
        return self._close_guard(error)

    def _overran(self) -> None:
        self.lease_lost(Loss.OVERRAN)

    def _in_loop(self, function: Callable[[], object]) -> bool:
        """Call a function in the call's event loop; whether that loop is still there."""
        try:
            if threading.get_ident() == self._thread:
                function()
            else:
                self._call_soon(function)
        except RuntimeError:  # asyncio: the loop is closed; trio's RunFinishedError is one, too
            return False
        return True

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        """Return what wakes one waiter, and what the waiter calls and awaits."""
        raise NotImplementedError

    def _call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the event loop, from another thread."""
        raise NotImplementedError

    def _open_guard(self) -> None:
        raise NotImplementedError

    def _cancel_body(self) -> None:
        raise NotImplementedError

    def _close_guard(self, error: BaseException | None) -> bool:
        raise NotImplementedError


class AsyncioCall(AsyncCall):
    """Cancels a body as `asyncio.timeout` does: the task, once, and takes it back at the end."""

    owner: asyncio.Task[Any]
    _interrupted = False
    _timer: asyncio.TimerHandle | None = None

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        return wake, lambda: future

    def _call_soon(self, function: Callable[[], object]) -> None:
        self.owner.get_loop().call_soon_threadsafe(function)

    def _open_guard(self) -> None:
        self._cancelling = self.owner.cancelling()
        max_hold = self.request.max_hold
        if max_hold is not None:
            self._timer = self.owner.get_loop().call_later(max_hold, self._overran)

    def _cancel_body(self) -> None:
        # Soon, not now: then the task stands at an await of its body, or is past it. A task that
        # cancels itself would else carry the cancellation out of a body that awaits no more.
        self.owner.get_loop().call_soon(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.guarded and not self._interrupted:
            self._interrupted = True
            self.owner.cancel()

    def _close_guard(self, error: BaseException | None) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if not self._interrupted:
            return False
        # Somebody else may have cancelled the task as well: then it stays cancelled.
        alone = self.owner.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)


class TrioCall(AsyncCall):
    """Cancels a body by a cancel scope around it, as anything in trio."""

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float]) -> None:
        super().__init__(owner, terms, now)
        self._token = sys.modules["trio"].lowlevel.current_trio_token()

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        event = sys.modules["trio"].Event()
        return event.set, event.wait

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)

    def _open_guard(self) -> None:
        self._scope = anyio.CancelScope()
        max_hold = self.request.max_hold
        if max_hold is not None:
            self._scope.deadline = anyio.current_time() + max_hold
        self._scope.__enter__()

    def _cancel_body(self) -> None:
        self._scope.cancel()

    def _close_guard(self, error: BaseException | None) -> bool:
        kind = None if error is None else type(error)
        self._scope.__exit__(kind, error, None if error is None else error.__traceback__)
        if self._scope.cancelled_caught:
            self._overran()  # unless the loss was known before: then this changes nothing
        return self._scope.cancelled_caught


def new_call(terms: Terms, now: Callable[[], float]) -> AsyncCall:
    """Return a call of the running task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop runs in this thread, so it is trio's
        return TrioCall(sys.modules["trio"].lowlevel.current_task(), terms, now)
    return AsyncioCall(task, terms, now)
