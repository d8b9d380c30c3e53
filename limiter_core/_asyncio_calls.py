"""A call in an asyncio loop; what it shares with trio's is in `_async_calls`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any

from limiter_core._anyio_scopes import current_scope, is_shielded_within, shield
from limiter_core._async_calls import AsyncCall
from limiter_core._blocks import ANYWHERE, NOWHERE, awaits_in
from limiter_core.requests import Answer, Loss

_SHIELD_CHECK = 0.005
"""Seconds between looks whether a body has left a shield of anyio's, to be cancelled then.

For tasks that do not expose what they wait for; asyncio's own do."""


class AsyncioCall(AsyncCall):
    """A call in an asyncio loop."""

    __slots__ = ("_cancelled", "_cancelling", "_scope", "_timer")

    loop: asyncio.AbstractEventLoop

    owner: asyncio.Task[Any] | None
    """None where a coroutine is driven without a task: its body cannot be cancelled."""

    def look_again(self, answer: Answer | None = None) -> bool:
        """Wake the waiter; whether its event loop is still there."""
        if self.granted is not None and self.owner is not None and self.loop.is_closed():
            # Its task will never go on. A listener of the store must not keep that alive: once it
            # is collected, its lease is.
            if self.block:
                self.engine.ended(self)
            self.owner = None
        return AsyncCall.look_again(self, answer)

    def wait_for_news(self, seconds: float) -> Awaitable[object]:
        """Wait until the store notifies that asking again is useful; at most so many seconds."""
        future: asyncio.Future[None] = self.loop.create_future()

        def wake() -> None:
            try:
                if not future.done():
                    future.set_result(None)
            except BaseException:  # a signal handler's: it is for the loop, and this is not lost
                if not future.done():
                    future.set_result(None)
                raise

        self._wake = wake
        # In this order: `look_again` notes the news before it looks for a waiter to wake.
        if self._news:
            wake()
            return future
        if not self.is_ticked:
            seconds = self.until_look(seconds)
        if seconds == math.inf:
            return future
        return _until_done(future, self.loop.call_later(seconds, wake))

    def call_later(
        self,
        seconds: float,
        function: Callable[[], object],
        at_end: Callable[[], object],  # noqa: ARG002  (asyncio's loops have no end that could be noted)
    ) -> object:
        """Have a function called after so many seconds."""
        return self.loop.call_later(seconds, function)

    def is_there(self) -> bool:
        """Whether the call's event loop was not closed; also if this is asked in its thread."""
        return not self.loop.is_closed()

    def guard_body(self, where: int) -> None:
        """Have the body, which begins now, cancelled when the lease is lost."""
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled = False
        """Whether the body was cancelled, by us."""
        task = self.owner
        if task is None:
            where = NOWHERE
        else:
            # How often others have asked to cancel it, and the innermost scope of anyio's.
            self._cancelling = task.cancelling()
            self._scope = current_scope(task)
        max_hold = self.request.max_hold
        # Where a call was admitted without a store there is no slot to take back.
        if max_hold is not None and where != NOWHERE and self.granted is not None:
            self._timer = self.loop.call_later(max_hold, self.lease_lost, Loss.OVERRAN)
        # In this order: `lease_lost` notes the loss before it looks for a body.
        self.guarded = where
        if self.loss is not None:
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the body of a `hold`."""
        if self.guarded is not None:
            # Never at once: a task that runs, and leaves the body, would be cancelled behind it.
            # A loop that is closed has no task any more that could be cancelled.
            with contextlib.suppress(RuntimeError):
                if get_ident() == self._thread:
                    self.loop.call_soon(self._cancel_body)
                else:
                    self._call_soon(self._cancel_body)

    def stop_guarding(self) -> None:
        """Cancel no body from now on: its slot is being released."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def unguard_body(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,  # noqa: ARG002  (trio's scopes need it)
        traceback: TracebackType | None,  # noqa: ARG002  (likewise)
    ) -> bool:
        """Leave the body alone; whether what came out of it is the cancellation for a loss."""
        if self.guarded is None:
            return False
        if self._timer is not None:
            self.stop_guarding()
        self.guarded = None
        if not self._cancelled:
            return False
        self._cancelled = False
        task = self.owner
        if task is None:  # its loop was closed
            return False
        # As `asyncio.timeout` does: a cancellation that others asked for goes first.
        others = task.uncancel() > self._cancelling
        if kind is None or others or not issubclass(kind, asyncio.CancelledError):
            return False
        # If another task leaves the block, what ends that task is a cancellation of its own.
        return asyncio.current_task() is task

    async def finish(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Carry out some work to its end; a plain `Task.cancel` knows nothing of shields."""
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        cancelled: asyncio.CancelledError | None = None
        with shield():
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
        self.loop.call_soon_threadsafe(function)

    def _cancel_body(self) -> None:
        """Cancel the task if it is in the body; called by the loop, while the task waits."""
        where, task = self.guarded, self.owner
        if where is None or self.closed or self._cancelled:
            return
        if (
            task is None
            or task.done()
            or where == NOWHERE
            or (where > ANYWHERE and not awaits_in(task.get_coro(), where))
        ):
            self._warn_instead()
        elif getattr(task, "_must_cancel", False):
            # Other code has just cancelled it: that goes first, with its own message.
            self.loop.call_soon(self._cancel_body)
        elif is_shielded_within(task, self._scope):
            self._look_after_step(task)
        else:
            self._cancelled = True
            task.cancel(str(self.loss_error()))

    def _look_after_step(self, task: asyncio.Task[Any]) -> None:
        """Try again to cancel the body each time the task has made a step.

        A look every now and then would miss the moments between one shield and the next.
        """
        asyncio_task: Any = task
        try:
            awaited: asyncio.Future[Any] | None = asyncio_task._fut_waiter  # noqa: SLF001  (no public name)
        except AttributeError:
            self.loop.call_later(_SHIELD_CHECK, self._cancel_body)
            return
        if awaited is None:  # its step comes with the next round of the loop
            self.loop.call_soon(self._cancel_body)
        else:  # called after the task, which waits for longer
            awaited.add_done_callback(lambda _: self._cancel_body())


async def _until_done(future: asyncio.Future[None], timer: asyncio.TimerHandle) -> None:
    try:
        await future
    finally:
        timer.cancel()
