"""One timer of an event loop for all calls that wait there without a bound.

A timer for each would be a tenth of the time of a hand-off in one process, in trio a third.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from functools import partial
from typing import Any

from limiter_core._async_calls import AsyncCall

TICK = 1.0
"""Seconds between two looks."""


class LoopTickers:
    """Wakes the calls of one engine that have to be looked at, to within a tick.

    Args:
        waiting: all calls of the engine that wait, in any event loop and in threads.
    """

    def __init__(self, waiting: Collection[Any]) -> None:
        self._waiting = waiting
        self._ticking: set[Any] = set()
        """The event loops with a timer."""

    def watch(self, call: AsyncCall) -> None:
        """Look at a call of the running event loop, too, as long as it waits."""
        call.is_ticked = True
        if call.loop not in self._ticking:
            for other in [each for each in list(self._ticking) if _is_closed(each)]:
                self._ticking.discard(other)
            self._begin(call)

    def _begin(self, call: AsyncCall) -> None:
        loop = call.loop
        self._ticking.add(loop)
        try:
            call.call_later(TICK, partial(self._tick, loop), partial(self._ticking.discard, loop))
        except RuntimeError:  # trio's run has ended
            self._ticking.discard(loop)
            call.is_ticked = False

    def _tick(self, loop: object) -> None:
        self._ticking.discard(loop)
        calls = [call for call in list(self._waiting) if getattr(call, "loop", None) is loop]
        for call in calls:
            if call.now() >= call.look_at:
                call.wake()
        for call in calls:
            if call.look_at < math.inf:
                self._begin(call)
                break


def _is_closed(loop: object) -> bool:
    # Of trio there is none: a timer ends with its run.
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
