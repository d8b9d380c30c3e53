"""The system's time, out of reach of tools that set it for a test.

freezegun and its like replace `time.monotonic` and `time.time` in the module `time`, and in every
module that holds a reference to them. But a lease lives on a server, by real time: in a frozen
process it would count as lost, or would never be renewed. So this package imports
`system_clock as time` from here, in place of the module: what an object holds is not replaced.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType

__all__ = ("system_clock",)

_NANOSECONDS = 1_000_000_000


def _original(function: Callable[[], float], clock_id: int | None) -> Callable[[], float]:
    """Return a function of `time`, or its equal where a tool has put another in its place."""
    if sys.platform == "win32" or isinstance(function, BuiltinFunctionType) or clock_id is None:
        return function
    return partial(time.clock_gettime, clock_id)


class _Clock:
    """What this package uses of the module `time`."""

    __slots__ = ("monotonic", "time")

    def __init__(self) -> None:
        self.monotonic = _original(time.monotonic, getattr(time, "CLOCK_MONOTONIC", None))
        self.time = _original(time.time, getattr(time, "CLOCK_REALTIME", None))

    def time_ns(self) -> int:
        """Return the time since the epoch, in nanoseconds; exact to about a microsecond."""
        return int(self.time() * _NANOSECONDS)

    def sleep(self, seconds: float) -> None:
        """Sleep. Looked up at each call: gevent puts its own in place of the system's."""
        time.sleep(seconds)


system_clock = _Clock()
