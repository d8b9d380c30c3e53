"""Whose task runs here, asyncio's or trio's, and a call of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from limiter_core._async_calls import AsyncCall
from limiter_core._asyncio_calls import AsyncioCall
from limiter_core._trio_calls import TrioCall, running_trio
from limiter_core.errors import ConfigurationError
from limiter_core.limits import Terms


def new_call(terms: Terms, now: Callable[[], float]) -> AsyncCall:
    """Return a call of the running task.

    Raises:
        ConfigurationError: no event loop runs here.
    """
    try:
        loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:  # no asyncio loop runs in this thread
        loop = None
    if loop is not None:
        task = asyncio.current_task(loop)
        if task is not None:
            return AsyncioCall(task, terms, now, loop)
    # trio may be a guest of asyncio's loop; and a coroutine may be driven without a task.
    trio = running_trio()
    if trio is not None:
        try:
            owner = trio.lowlevel.current_task()
        except RuntimeError:  # none of its tasks runs just now
            pass
        else:
            return TrioCall(owner, terms, now, trio)
    if loop is not None:
        return AsyncioCall(None, terms, now, loop)
    raise ConfigurationError(
        "a Limiter runs in an event loop, of asyncio or trio, and here is none: in a thread use "
        "SyncLimiter"
    )
