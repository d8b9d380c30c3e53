"""One record from the reports of several processes, in the order in which things happened.

A process reports as lines of JSON: `[what, at, ...]`, `at` in seconds of the log on the clock that
all processes of a machine share. Between events it reports `now`, so that others need not wait to
receive whether something happened earlier.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

from limiter_cli.demo.plan import Planned
from limiter_cli.demo.record import Outcome, Record, Turn

__all__ = ("ReportMerger",)


class ReportMerger:
    """Puts reports in order, and passes them to the record.

    Attributes:
        record: what happened up to the moment that every process has reported of.

    Args:
        calls: the plan; reports name calls by their place in it.
        processes: how many report.
    """

    def __init__(self, calls: Sequence[Planned], processes: int) -> None:
        self.record = Record()
        self._calls = calls
        self._turns: dict[int, Turn] = {}
        self._reported_until = [-math.inf] * processes
        self._waiting: list[tuple[float, int, int, Sequence[Any]]] = []
        self._received = 0

    def receive(self, process: int, report: Sequence[Any]) -> None:
        """Take a report. Those of one process come in order."""
        at: float = report[1]
        self._received += 1
        heapq.heappush(self._waiting, (at, process, self._received, report))
        self._until(process, at)

    def finished(self, process: int) -> None:
        """Note that a process has nothing more to report."""
        self._until(process, math.inf)

    def _until(self, process: int, at: float) -> None:
        self._reported_until[process] = at
        known = min(self._reported_until)
        while self._waiting and self._waiting[0][0] <= known:
            self._record(*heapq.heappop(self._waiting)[-1])

    def _record(self, what: str, at: float, place: int = -1, *rest: Any) -> None:
        if what == "arrived":
            self._turns[place] = self.record.arrived(self._calls[place], at)
        elif what == "began":
            self.record.began(self._turns[place], at)
        elif what == "ended":
            self.record.ended(self._turns[place], at)
        elif what == "left":
            outcome, key = rest
            self.record.left(self._turns[place], at, Outcome(outcome), key)
