"""What the parts of the app share: the store, the collector in the background, and the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette

from limiter_core import Limiter
from limiter_core.monitoring import Collector
from limiter_core.registry import open_store, without_secrets
from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time
from limiter_web.access import Access

__all__ = ("Site",)

logger = logging.getLogger("limiter")

FIRST_LOOK = 1.0
"""Seconds that the first page waits for the first search."""


class Site:
    """One app: a store, and what looks at it.

    The collector begins with the first request in an event loop, or with the app's lifespan: an app
    that is mounted in another has none.

    Args:
        store: a store, or its URL.
        access: who may read and act.
        top_keys: the busiest keys that metrics name.
        trace_url: where a trace can be seen, with `{trace_id}` in it; None without one.

    Attributes:
        title: names the store, without secrets.
        closing: whether streams of events are to end.
    """

    def __init__(
        self, store: str | Store, access: Access, *, top_keys: int, trace_url: str | None
    ) -> None:
        self.title = without_secrets(store) if isinstance(store, str) else type(store).__name__
        self.store = open_store(store)
        self._owns_store = isinstance(store, str)
        self.access = access
        self.top_keys = top_keys
        self.trace_url = trace_url
        self.limiter = Limiter(self.store)
        self.collector = Collector(self.store)
        self.closing = False
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ensure_running(self) -> None:
        """Have the collector run in this event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._task is not None and not self._task.done():
            return
        self._loop = loop
        self._task = loop.create_task(self.collector.run(), name="limiter-collector")
        self._task.add_done_callback(_log_end)

    async def ready(self) -> None:
        """Have the collector run, and wait a moment for what it finds first."""
        self.ensure_running()
        self.collector.touch()
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                while not self._has_looked():
                    await self.collector.next_round()

    def _has_looked(self) -> bool:
        health = self.collector.health
        if health.unavailable_since is not None:
            return True
        return health.searched and not self.collector.unseen()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Run the collector from the begin of a server to its end."""
        self.ensure_running()
        try:
            yield
        finally:
            if self._task is not None:
                self._task.cancel()
                with suppress(asyncio.CancelledError):
                    await self._task
            if self._owns_store:
                await self.store.async_face().aclose()

    def end_streams(self) -> None:
        """End the streams of events: a server that stops waits for its responses."""
        self.closing = True
        self.collector.notify()

    def wall_time(self, at: float) -> float:
        """Return a time on the collector's clock as seconds since the epoch."""
        return time.time() - (self.collector.now() - at)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the collector ended; the next request starts it again", exc_info=error)
