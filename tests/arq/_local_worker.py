"""A `LimitedWorker` that runs in a test's own event loop."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from arq.connections import RedisSettings

from limiter_arq import LimitedWorker


class LocalWorker(AbstractAsyncContextManager[LimitedWorker]):
    """Runs a worker until the block ends; then it is shut down, as by a signal."""

    def __init__(self, url: str, functions: Any, settings: dict[str, Any]) -> None:
        self._settings = {
            "redis_settings": RedisSettings.from_dsn(url),
            "poll_delay": 0.05,
            "keep_result": 60,
            "handle_signals": False,
            "allow_abort_jobs": True,
            "claim": 2.0,
            **settings,
        }
        self._functions = functions

    async def __aenter__(self) -> LimitedWorker:
        self.worker = LimitedWorker(self._functions, **self._settings)
        self._task = asyncio.create_task(self.worker.async_run())
        return self.worker

    async def __aexit__(self, *_: object) -> None:
        if self._task.done() and not self._task.cancelled():
            self._task.result()  # it ended by itself: not by an error
        await self.worker.close()
        await asyncio.gather(self._task, return_exceptions=True)
