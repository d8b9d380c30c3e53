"""A load of calls in this process, for tests of faults."""

from __future__ import annotations

import asyncio
from typing import Self

from limiter_core import ConcurrencyLimit, Limiter, LimiterError
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore

from ._tools import until


class Load:
    """Calls that take turns in this process, and a record of how many hold at once."""

    def __init__(self, store: RedisStore, limit: ConcurrencyLimit, *, at_once: int = 12) -> None:
        self.recorder = OverlapRecorder()
        self.errors: list[LimiterError] = []
        self.tokens: list[int] = []
        self.done = 0
        self._limiter = Limiter(store)
        self._limit = limit
        self._at_once = at_once
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._at_once)]
        await until(lambda: self.done > self._at_once, "the load runs")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 20.0)

    async def until_progress(self, calls: int = 30) -> None:
        """Wait until so many more bodies have run."""
        count = self.done + calls
        await until(lambda: self.done >= count, f"{calls} more bodies run")

    async def _call(self) -> None:
        while not self._stopping:
            try:
                async with self._limiter.hold(self._limit) as lease:
                    with self.recorder.holding("work"):
                        self.tokens.append(lease.fencing_token)
                        await asyncio.sleep(0.001)
                self.done += 1
            except LimiterError as error:
                self.errors.append(error)
