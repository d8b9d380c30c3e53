"""Work beside the jobs of an event loop that has to be completed, even if a caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from limiter_core.errors import StoreError

R = TypeVar("R")

logger = logging.getLogger("limiter")


class BackgroundTasks:
    """Tasks that outlive their callers, and are waited for when the worker ends.

    A task that fails is logged: the slot that it was to hand on is offered again. All tasks belong
    to one event loop.

    Args:
        log: the logger; the limiter's own unless given.
    """

    def __init__(self, log: logging.Logger = logger) -> None:
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        with contextlib.suppress(RuntimeError):  # it may be made before its loop runs
            self._loop = asyncio.get_running_loop()

    def begin(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Start a task."""
        self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(work)
        self.add(task)
        task.add_done_callback(self._log_failure)
        return task

    def begin_soon(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Start a task from any thread; does nothing if the event loop is closed."""
        assert self._loop is not None, "no task was started yet, so the event loop is not known"
        try:
            self._loop.call_soon_threadsafe(lambda: self.begin(work()))
        except RuntimeError:
            self._log.debug("an event loop was closed before its last background task")

    def add(self, task: asyncio.Task[Any]) -> None:
        """Wait for this task, too."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, work: Coroutine[Any, Any, R]) -> R:
        """Complete some work; if the caller is cancelled meanwhile, raises that afterwards."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            self._log_failure(task)
            raise cancelled
        return task.result()

    async def done(self, seconds: float) -> None:
        """Wait, so long at most, until no task is left; includes tasks that start meanwhile."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        current = asyncio.current_task()
        await asyncio.sleep(0)  # tasks that are to start soon start
        while (waiting := self._tasks - {current}) and loop.time() < give_up_at:
            await asyncio.wait(waiting, timeout=give_up_at - loop.time())
            await asyncio.sleep(0)  # their callbacks, which may start more

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        # A lost connection needs no traceback; a mistake does.
        away = isinstance(error, OSError | StoreError) or "redis" in type(error).__module__
        self._log.warning(
            "could not hand a job on, it is offered again: %s",
            error,
            exc_info=None if away else error,
        )
