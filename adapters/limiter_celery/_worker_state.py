"""What the parts of one worker's limiter have to know of the worker."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class WorkerState:
    """The state of a worker.

    Attributes:
        connection: the number of its current connection to the broker.
        closing: whether it is about to end.
    """

    def __init__(self) -> None:
        self.connection = 0
        self.closing = False
        self._thread = threading.local()

    @contextmanager
    def own_step(self) -> Generator[None]:
        """Mark a step of the store that is made by the calling thread.

        Only this process gets the notices of such a step. Those of a step that is made by a process
        that cannot wake tasks may go to all workers.
        """
        self._thread.in_own_step = True
        try:
            yield
        finally:
            self._thread.in_own_step = False

    @property
    def in_own_step(self) -> bool:
        """Whether the calling thread makes such a step."""
        return getattr(self._thread, "in_own_step", False)
