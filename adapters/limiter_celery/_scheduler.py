"""Runs functions later, in a thread of its own: what may take long and need not be done now."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable

from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")


class Scheduler:
    """Runs the functions that it is given one after the other, each at its time.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run a function as soon as possible; see `call_later`."""
        self.call_later(0.0, function)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Run a function after so many seconds; from any thread. After `stop`, it is ignored.

        So it is in a child of the process: its copy of the lock may be held for good by a thread
        that it does not have, and what is collected there must not wait for it.
        """
        if os.getpid() != self._pid:
            return
        with self._changed:
            if not self._stopped:
                due_at = time.monotonic() + seconds
                heapq.heappush(self._due, (due_at, next(self._numbers), function))
                self._changed.notify()

    def stop(self, patience: float, *, early: bool = True) -> None:
        """Run what is left, and end.

        Args:
            patience: seconds for which it waits for that.
            early: whether that is run whose time has not come; else it is forgotten.
        """
        with self._changed:
            self._stopped = True
            if not early:
                now = time.monotonic()
                self._due = [each for each in self._due if each[0] <= now]
                heapq.heapify(self._due)
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)

    def _run(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except Exception:  # the next one does not depend on it
                logger.exception("a scheduled function failed")

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and (self._stopped or left <= 0):
                    return heapq.heappop(self._due)[2]
                if self._stopped:
                    return None
                self._changed.wait(left)
