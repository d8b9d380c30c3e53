"""A call in an event loop: how a waiter is woken, and a body cancelled.

anyio could do it too, at a price: here each microsecond is paid by every call, and its scopes have
to be left in the task and in the order in which they were entered. The little that differs stands
in `_asyncio_calls.py` and `_trio_calls.py`; nothing else in the package knows which loop runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any, Protocol

from limiter_core._call import Call, logger
from limiter_core._collected import notify_later
from limiter_core.limits import Terms
from limiter_core.requests import Answer

_explained: set[str] = set()
"""The explanations that this process has logged."""


class ClientGone(Exception):
    """The client for which a call waited is gone."""


class Client(Protocol):
    """What a call is made for. It may go away before the call has its slot.

    Attributes:
        is_gone: whether it has; the call then raises `ClientGone`, if it still waits.
    """

    is_gone: bool

    def begin_waiting(self, wake: Callable[[], object]) -> None:
        """Note that the call has to wait.

        Args:
            wake: to be called in the call's event loop when the client is gone.
        """
        ...

    def end_waiting(self) -> None:
        """Note that the call has its slot."""
        ...


class AsyncCall(Call):
    """What the calls of both loops have in common."""

    __slots__ = ("_news", "_thread", "_wake", "guarded", "in_stream", "is_ticked", "loop")

    loop: Any
    """Asyncio's event loop, or what stands for it in trio: the token of the run."""

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float], loop: Any) -> None:
        Call.__init__(self, owner, terms, now)
        self.loop = loop
        self.guarded: int | None = None
        """When the body may be cancelled, as `where_to_cancel` says; None while there is none."""
        self.in_stream = False
        """Whether an async generator holds it, of which its event loop knows."""
        self.is_ticked = False
        """Whether a timer of its event loop wakes it when it has to be looked at."""
        self._news = False
        self._wake: Callable[[], object] | None = None
        self._thread = get_ident()

    def clear_news(self) -> None:
        """Count as news only what comes from now on."""
        self._wake = None
        self._news = False

    def wait_for_news(self, seconds: float) -> Awaitable[object]:
        """Wait until the store notifies that asking again is useful; at most so many seconds."""
        raise NotImplementedError

    def look_again(self, answer: Answer | None = None) -> bool:
        """Wake the waiter; whether its event loop is still there."""
        self.deliver(answer)
        self._news = True
        if self.granted is not None:
            return True  # a holder may continue in another loop
        wake = self._wake
        return self.is_there() if wake is None else self.in_loop(wake)

    def ends_by_itself(self) -> bool:
        """Whether its slots come back while the code that holds them waits on, not cancelled."""
        return self.guarded is None and self.request.max_hold is not None

    def is_closed_by_loop(self) -> bool:
        """Whether an event loop closes the generator that holds it, if that is collected."""
        return self.in_stream and self.is_there()

    def wake(self) -> None:
        """Have it ask again; in its event loop."""
        self._news = True
        if self._wake is not None:
            self._wake()

    def is_there(self) -> bool:
        """Whether the call's event loop has not ended."""
        return self.in_loop(lambda: None)

    def guard_body(self, where: int) -> None:
        """Have the body, which begins now, cancelled when the lease is lost.

        Args:
            where: when it may be, as `where_to_cancel` says.
        """
        raise NotImplementedError

    def stop_guarding(self) -> None:
        """Cancel no body from now on: its slot is being released. Only if one is guarded."""
        raise NotImplementedError

    def unguard_body(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave the body alone; whether what came out of it is the cancellation for a loss."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the call's event loop; in the background if that has ended."""
        try:
            self._call_soon(function)
        except RuntimeError:
            notify_later(function)

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
        """Complete some work, even if the caller is cancelled.

        Raises:
            TimeoutError: it took longer than so many seconds, and was given up.
        """
        raise NotImplementedError

    def call_later(
        self, seconds: float, function: Callable[[], object], at_end: Callable[[], object]
    ) -> object:
        """Have a function called after so many seconds; in its event loop, and from there.

        Args:
            seconds: from now on.
            function: is called then.
            at_end: is called instead if a run of trio ends before.

        Raises:
            RuntimeError: the run has ended.
        """
        raise NotImplementedError

    def _call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the event loop, from another thread."""
        raise NotImplementedError

    def _warn_instead(self) -> None:
        """Report the loss, where cancelling would hit what is not, or no longer, the body."""
        logger.warning("%s", self.loss_error())
        if "warn" not in _explained:
            _explained.add("warn")
            logger.warning(
                "a body is cancelled for a lost lease only in the task that entered the hold, by "
                "`async with`, and not while it rests at the `yield` of an async generator: there "
                "the loss is only logged, as above; check lease.lost or lease.check() (logged once)"
            )
