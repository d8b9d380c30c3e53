"""A call in a thread: how its waiter is woken."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

from limiter_core._call import Call, logger
from limiter_core._collected import notify_later
from limiter_core._trio_calls import running_trio
from limiter_core.limits import Terms
from limiter_core.requests import Answer
from limiter_core.threads import WaitEvent, new_wait_event


class SyncCall(Call):
    """A call in a thread."""

    __slots__ = ("_event", "_news", "_waited", "in_coroutine")

    def __init__(self, terms: Terms, now: Callable[[], float]) -> None:
        Call.__init__(self, threading.current_thread(), terms, now)
        self._event: WaitEvent | None = None
        """What it waits for; None while it does not."""
        self._news = False
        self._waited = False
        self.in_coroutine = False
        """Whether a coroutine holds it: then it is not released while its event loop is blocked."""

    def clear_news(self) -> None:
        """Count as news only what comes from now on."""
        self._news = False

    def wait_for_news(self, seconds: float) -> None:
        """Wait until the store notifies that asking again is useful; at most so many seconds."""
        if not self._waited:
            self._waited = True
            _warn_of_event_loop()
        event = self._event = new_wait_event()
        seconds = self.until_look(seconds)
        # In this order: `look_again` notes the news before it looks for a waiter to wake.
        if not self._news:
            event.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
        self._event = None

    def look_again(self, answer: Answer | None = None) -> bool:
        """Wake the waiter."""
        self.deliver(answer)
        self._news = True
        event = self._event
        if event is not None:
            event.set()
        return True

    def is_around(self, frames: set[int]) -> bool:
        """Whether it is not released before this thread continues."""
        return self.block in frames or (self.in_coroutine and _loop_name() is not None)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in a thread of the background."""
        notify_later(function)

    def interrupt(self) -> None:
        """Say that the lease is lost: a running thread cannot be stopped from outside."""
        logger.warning("%s", self.loss_error())


def _loop_name() -> str | None:
    """Return whose event loop runs in this thread, None if none does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # none of asyncio's does
        return None if running_trio() is None else "trio"
    return "asyncio"


def _warn_of_event_loop() -> None:
    loop = _loop_name()
    if loop is not None:
        logger.warning(
            "a SyncLimiter waits in the thread of a running %s loop. That blocks the loop, and "
            "with it the code that has to release the slot: use Limiter there, or wait in another "
            "thread (asyncio.to_thread)",
            loop,
        )
