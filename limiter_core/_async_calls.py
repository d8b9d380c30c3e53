"""A call in an event loop: how a waiter is woken, and a body cancelled.

anyio could do the waking too, at a price: here each microsecond is paid by every call. The little
that differs stands in `AsyncioCall` and `TrioCall`; nothing else in the package knows which loop
runs.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any, ClassVar

import anyio

from limiter_core._call import Call
from limiter_core.limits import Terms
from limiter_core.requests import Answer, Loss


class AsyncCall(Call):
    """What the calls of both loops have in common."""

    scope_type: ClassVar[type[anyio.CancelScope] | None] = None
    _scope: anyio.CancelScope | None = None
    """Around the body that is to be cancelled when the lease is lost."""
    _news = False
    _wake: Callable[[], object] | None = None

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float]) -> None:
        # Not through `Call`: this is paid by every call.
        self.owner = owner
        self.on_lost = terms.on_lost
        self.now = now
        self._thread = get_ident()

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
        return wake is None or self.in_loop(wake)

    def interrupt(self) -> None:
        """Cancel the body of a `hold`."""
        if self._scope is not None:
            self.in_loop(self._scope.cancel)

    def guard_body(self) -> None:
        """Have the body, which begins now, cancelled when the lease is lost."""
        # anyio looks up its backend for every scope; and every call makes one.
        if self.scope_type is None:
            type(self).scope_type = type(anyio.CancelScope())
        scope = (self.scope_type or anyio.CancelScope)()
        max_hold = self.request.max_hold
        if max_hold is not None:
            scope.deadline = anyio.current_time() + max_hold
        scope.__enter__()
        # In this order: `lease_lost` notes the loss before it looks for a body.
        self._scope = scope
        if self.loss is not None:
            scope.cancel()

    def stand_down(self) -> None:
        """Forget when the body has to end: its slot was given back before."""
        if self._scope is not None:
            self._scope.deadline = math.inf

    def unguard_body(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave the body alone; whether what came out of it is the cancellation for a loss."""
        scope = self._scope
        if scope is None:
            return False
        self._scope = None
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught and self.loss is None:  # nobody did but the deadline
            self.loss = Loss.OVERRAN
        return scope.cancelled_caught

    def in_loop(self, function: Callable[[], object]) -> bool:
        """Call a function in the call's event loop; whether that loop is still there."""
        try:
            if get_ident() == self._thread:
                function()
            else:
                self._call_soon(function)
        except RuntimeError:  # asyncio: the loop is closed; trio's RunFinishedError is one, too
            return False
        return True

    async def finish(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Carry out some work to its end, whoever cancels.

        Raises:
            TimeoutError: it took longer than so many seconds, and was given up.
        """
        with anyio.fail_after(seconds, shield=True):
            await work

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        """Return what wakes one waiter, and what the waiter calls and awaits."""
        raise NotImplementedError

    def _call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the event loop, from another thread."""
        raise NotImplementedError


class AsyncioCall(AsyncCall):
    """A call in an asyncio loop."""

    owner: asyncio.Task[Any]

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        return wake, lambda: future

    async def finish(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Carry out some work to its end; a plain `Task.cancel` knows nothing of shields."""
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not task.done() and loop.time() < deadline:
                try:
                    await asyncio.wait([task], timeout=deadline - loop.time())
                except asyncio.CancelledError as error:
                    cancelled = error
        if not task.done():
            task.cancel()
            raise TimeoutError if cancelled is None else cancelled
        if cancelled is None:
            await task
        elif task.exception() is None:  # the cancellation goes first; a failure is looked at here
            raise cancelled
        else:
            raise cancelled from task.exception()

    def _call_soon(self, function: Callable[[], object]) -> None:
        self.owner.get_loop().call_soon_threadsafe(function)


class TrioCall(AsyncCall):
    """A call in a trio loop."""

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float]) -> None:
        super().__init__(owner, terms, now)
        self._token = sys.modules["trio"].lowlevel.current_trio_token()

    def _new_event(self) -> tuple[Callable[[], object], Callable[[], Awaitable[object]]]:
        event = sys.modules["trio"].Event()
        return event.set, event.wait

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)


def new_call(terms: Terms, now: Callable[[], float]) -> AsyncCall:
    """Return a call of the running task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop runs in this thread, so it is trio's
        return TrioCall(sys.modules["trio"].lowlevel.current_task(), terms, now)
    return AsyncioCall(task, terms, now)
