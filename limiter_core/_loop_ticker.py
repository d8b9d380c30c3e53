"""One timer of an event loop for all calls that wait there without a bound.

A timer for each would be a tenth of the time of a hand-off in one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

TICK = 1.0
"""Seconds between two looks."""


class LoopTickers:
    """Wakes the calls of one engine that have to be looked at, to within a tick.

    Args:
        waiting: all calls of the engine that wait, in any event loop.

    Attributes:
        armed: the event loops with a timer.
    """

    def __init__(self, waiting: Collection[Any]) -> None:
        self._waiting = waiting
        self.armed: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the calls of the running event loop, as long as there are any."""
        for other in [each for each in self.armed if each.is_closed()]:
            del self.armed[other]
        self.armed[loop] = loop.call_later(TICK, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        del self.armed[loop]
        calls = [call for call in list(self._waiting) if getattr(call, "loop", None) is loop]
        for call in calls:
            if call.now() >= call.look_at:
                call.wake()
        if calls:
            self.arm(loop)
