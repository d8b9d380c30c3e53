"""A call in a trio loop; what it shares with asyncio's is in `_async_calls`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from limiter_core._async_calls import AsyncCall
from limiter_core._blocks import ANYWHERE
from limiter_core.limits import Terms
from limiter_core.requests import Loss


class TrioCall(AsyncCall):
    """A call in a trio loop."""

    __slots__ = ("_cancel_scope", "_trio")

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float], trio: Any) -> None:
        AsyncCall.__init__(self, owner, terms, now, trio.lowlevel.current_trio_token())
        self._cancel_scope: Any = None
        """Around the body that is to be cancelled when the lease is lost."""
        self._trio = trio

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until the store notifies that asking again is useful; at most so many seconds."""
        event = self._trio.Event()
        self._wake = event.set
        if not self.is_ticked:
            seconds = self.until_look(seconds)
        if self._news:
            pass
        elif seconds == math.inf:
            await event.wait()
        else:
            with self._trio.move_on_after(max(0.0, seconds)):
                await event.wait()

    def call_later(
        self, seconds: float, function: Callable[[], object], at_end: Callable[[], object]
    ) -> object:
        """Have a function called after so many seconds, or another one at the end of the run."""
        trio = self._trio

        async def wait() -> None:
            try:
                await trio.sleep(seconds)
            except trio.Cancelled:
                at_end()
                raise
            function()

        return trio.lowlevel.spawn_system_task(wait, name="limiter-ticker")

    def guard_body(self, where: int) -> None:
        """Have the body, which begins now, cancelled when the lease is lost.

        By a scope, which has to be left where it was entered: elsewhere there is none.
        """
        scope = None
        if where == ANYWHERE:
            scope = self._trio.CancelScope()
            max_hold = self.request.max_hold
            if max_hold is not None and self.granted is not None:
                scope.deadline = self._trio.current_time() + max_hold
            scope.__enter__()
        self._cancel_scope = scope
        # In this order: `lease_lost` notes the loss before it looks for a body.
        self.guarded = where
        if self.loss is not None:
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the body of a `hold`."""
        if self.guarded is not None:
            scope = self._cancel_scope
            if scope is None:
                self._warn_instead()
            else:
                self.in_loop(scope.cancel)

    def stop_guarding(self) -> None:
        """Cancel no body from now on: its slot is being released."""
        if self._cancel_scope is not None:
            _remove_deadline(self._cancel_scope)

    def unguard_body(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave the body alone; whether what came out of it is the cancellation for a loss."""
        self.guarded = None
        scope, self._cancel_scope = self._cancel_scope, None
        if scope is None:
            return False
        _remove_deadline(scope)
        if self._trio.lowlevel.current_task() is not self.owner:
            return False  # it can be left in its own task only
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught and self.loss is None:  # only the deadline did
            self.loss = Loss.OVERRAN
            if self.observed is not None:
                self.observed.lost(Loss.OVERRAN, None)
        return bool(scope.cancelled_caught)

    async def finish(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Complete some work, even if the caller is cancelled."""
        with self._trio.CancelScope(
            deadline=self._trio.current_time() + seconds, shield=True
        ) as scope:
            await work
        if scope.cancelled_caught:
            raise TimeoutError

    def _call_soon(self, function: Callable[[], object]) -> None:
        self.loop.run_sync_soon(function)


def _remove_deadline(scope: Any) -> None:
    if scope.deadline != math.inf:  # to set it takes a twentieth of a whole `hold`
        scope.deadline = math.inf


def running_trio() -> Any:
    """Return trio if it runs in this thread, None if it does not.

    It is the user's own, of any release (`in_trio_run` came late), and another thread may be in the
    middle of its import.
    """
    trio: Any = sys.modules.get("trio")
    lowlevel: Any = getattr(trio, "lowlevel", None)
    try:
        lowlevel.current_trio_token()
    except (AttributeError, RuntimeError):
        return None
    return trio
