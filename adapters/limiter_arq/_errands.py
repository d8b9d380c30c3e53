"""Work beside arq's own tasks: what must come to its end, whoever cancels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from redis.exceptions import RedisError

from limiter_core import StoreError

logger = logging.getLogger("arq.limiter")

R = TypeVar("R")


class Errands:
    """Tasks that are waited for when the worker closes."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Have some work done; what goes wrong is logged, and then found by a sweep or a poll."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(_log_failure)
        return task

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
            _log_failure(task)
            raise cancelled
        return task.result()

    async def done(self, seconds: float) -> None:
        """Wait until all is done, those begun meanwhile included; so many seconds at most."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        mine = asyncio.current_task()
        while (waiting := self._tasks - {mine}) and loop.time() < give_up_at:
            await asyncio.wait(waiting, timeout=give_up_at - loop.time())
            await asyncio.sleep(0)  # their callbacks, which may begin more


def _log_failure(task: asyncio.Task[Any]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, RedisError | OSError | StoreError):
        logger.warning("could not hand a job on, it is offered again: %s", error)
    else:
        logger.error("could not hand a job on, it is offered again", exc_info=error)
