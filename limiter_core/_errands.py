"""Work beside the jobs of an event loop: what must come to its end, whoever cancels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

logger = logging.getLogger("limiter")


class Errands:
    """Tasks that outlive those who began them, and are waited for when the worker ends.

    What goes wrong in one is logged: whatever it was to hand on is offered again.

    Raises:
        RuntimeError: no event loop runs; all of them belong to the running one.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Have some work done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def begin_soon(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have some work done; from any thread, also when the event loop is gone already."""
        try:
            self._loop.call_soon_threadsafe(lambda: self.begin(work()))
        except RuntimeError:
            logger.debug("an event loop ended before its last errand")

    async def finish(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work to its end even if the caller is cancelled, who is so only afterwards."""
        task = self.begin(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return task.result()

    async def done(self, seconds: float) -> None:
        """Wait until all is done, what is begun meanwhile included; so many seconds at most."""
        give_up_at = self._loop.time() + seconds
        mine = asyncio.current_task()
        while (waiting := self._tasks - {mine}) and self._loop.time() < give_up_at:
            await asyncio.wait(waiting, timeout=give_up_at - self._loop.time())
            await asyncio.sleep(0)  # their callbacks, which may begin more

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("could not hand a job on, it is offered again: %r", error)
