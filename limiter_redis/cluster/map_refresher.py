"""Refreshes of the slot map for an event loop, in a thread of their own: the loop's may be busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from limiter_core.threads import SystemThread
from limiter_redis.cluster.slot_map import SlotMap


class MapRefresher:
    """Refreshes the slot map, one time after the other.

    Args:
        slot_map: the map.
        loop: the event loop.
        refreshed: is called in the loop after each refresh, with the reason if it failed.
    """

    def __init__(
        self,
        slot_map: SlotMap,
        loop: asyncio.AbstractEventLoop,
        refreshed: Callable[[Exception | None], None],
    ) -> None:
        self._slot_map = slot_map
        self._loop = loop
        self._refreshed = refreshed
        self._is_running = False

    def begin(self) -> None:
        """Begin a refresh, unless one is under way."""
        if not self._is_running:
            self._is_running = True
            seen = self._slot_map.version
            SystemThread(lambda: self._refresh(seen), "limiter-slots").start()

    def reset(self) -> None:
        """Have the next `begin` begin one, whatever was under way: it may have been interrupted."""
        self._is_running = False

    def _refresh(self, seen: int) -> None:
        trouble: Exception | None = None
        try:
            self._slot_map.refresh(seen)
        except Exception as error:  # noqa: BLE001
            trouble = error
        self._is_running = False
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._refreshed, trouble)
