"""What need not be done at once, and may take long: in a thread of its own."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable

from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")


class Errands:
    """Runs one after the other what it is given, at its time.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self) -> None:
        """Begin."""
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def add(self, errand: Callable[[], object], after: float = 0.0) -> None:
        """Have something done; from any thread. Not any more, once it has ended.

        Nor in a child of the process: its copy of the lock may be held for good by a thread that it
        does not have, and what is collected there must not wait for it.
        """
        if os.getpid() != self._pid:
            return
        with self._wake:
            if self._ended:
                return
            at = time.monotonic() + after
            heapq.heappush(self._due, (at, next(self._numbers), errand))
            self._wake.notify()

    def stop(self, patience: float) -> None:
        """End, once all has been done, also what is not due yet; or after so many seconds."""
        thread = self._thread
        with self._wake:
            self._ended = True
            self._wake.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            try:
                errand()
            except Exception:  # the next one has nothing to do with it
                logger.exception("the limiter could not do what it had put off")

    def _next(self) -> Callable[[], object] | None:
        with self._wake:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if self._due and (self._ended or (left is not None and left <= 0)):
                    return heapq.heappop(self._due)[2]
                if self._ended:
                    return None
                self._wake.wait(left)
