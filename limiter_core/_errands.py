"""Work beside the jobs of an event loop: what must come to its end, whoever cancels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from limiter_core.errors import StoreError

R = TypeVar("R")

logger = logging.getLogger("limiter")


class Errands:
    """Tasks that outlive those who began them, and are waited for when the worker ends.

    What goes wrong in one is logged: whatever it was to hand on is offered again. All belong to
    one event loop.

    Args:
        log: where to; the limiter's own logger unless given.
    """

    def __init__(self, log: logging.Logger = logger) -> None:
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        with contextlib.suppress(RuntimeError):  # it may be made before its loop runs
            self._loop = asyncio.get_running_loop()

    def begin(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Have some work done."""
        self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(work)
        self.add(task)
        task.add_done_callback(self._ended)
        return task

    def begin_soon(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have some work done; from any thread, also when the event loop is gone already."""
        assert self._loop is not None, "nothing has begun yet, so no event loop is known"
        try:
            self._loop.call_soon_threadsafe(lambda: self.begin(work()))
        except RuntimeError:
            self._log.debug("an event loop ended before its last errand")

    def add(self, task: asyncio.Task[Any]) -> None:
        """Wait for this task, too."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work to its end even if the caller is cancelled, who is so only afterwards."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            self._ended(task)
            raise cancelled
        return task.result()

    async def done(self, seconds: float) -> None:
        """Wait until all is done, what is begun meanwhile included; so many seconds at most."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        mine = asyncio.current_task()
        await asyncio.sleep(0)  # what was to begin soon begins
        while (waiting := self._tasks - {mine}) and loop.time() < give_up_at:
            await asyncio.wait(waiting, timeout=give_up_at - loop.time())
            await asyncio.sleep(0)  # their callbacks, which may begin more

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        # What fails for want of a connection needs no traceback; a mistake does.
        away = isinstance(error, OSError | StoreError) or "redis" in type(error).__module__
        self._log.warning(
            "could not hand a job on, it is offered again: %s",
            error,
            exc_info=None if away else error,
        )
