"""What asyncio and trio do differently here: which task runs, how to reach its loop from outside.

(anyio has both, but `get_current_task` describes the task at some cost, and `from_thread.run_sync`
waits for the loop, which a store's step must not.)
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any


class TaskHandle:
    """The running task, and a way into its event loop from any thread.

    Attributes:
        task: an object that no other running task is.
    """

    __slots__ = ("_thread", "_trio_token", "task")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._trio_token: Any = None
        try:
            self.task: Any = asyncio.current_task()
        except RuntimeError:  # no asyncio loop runs in this thread, so it is trio's
            lowlevel = sys.modules["trio"].lowlevel
            self.task = lowlevel.current_task()
            self._trio_token = lowlevel.current_trio_token()

    def call(self, function: Callable[[], object]) -> bool:
        """Call a function in the task's event loop: at once from its thread, soon from another.

        Returns:
            Whether that loop is still there; if not, nothing was called.
        """
        try:
            if threading.get_ident() == self._thread:
                function()
            elif self._trio_token is None:
                self.task.get_loop().call_soon_threadsafe(function)
            else:
                self._trio_token.run_sync_soon(function)
        except RuntimeError:  # the asyncio loop is closed; trio's RunFinishedError is one, too
            return False
        return True
