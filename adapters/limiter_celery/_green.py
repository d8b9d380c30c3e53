"""gevent in a worker: whether threads are its greenlets, and the way into its loop.

Leases are renewed by a thread of the system, which the store sees to. What it has to say about
messages and connections is for the greenlets of the main thread: they must not be used elsewhere,
since gevent waits for a socket in the thread that opened it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def is_gevent() -> bool:
    """Whether threads are greenlets of gevent in this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class MainHub:
    """From any thread of the system into gevent's loop of the thread that makes this.

    Args:
        deliver: called there, in a greenlet of its own, as often as anybody says that there is
            something to do, or less often.
    """

    def __init__(self, deliver: Callable[[], object]) -> None:
        gevent: Any = import_module("gevent")
        self._system_thread: Any = import_module("gevent.monkey").get_original(
            "threading", "get_ident"
        )
        self._made_in = self._system_thread()
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._watcher.start(lambda: gevent.spawn(deliver))

    def is_elsewhere(self) -> bool:
        """Whether the caller is in another thread of the system."""
        return bool(self._system_thread() != self._made_in)

    def wake(self) -> None:
        """Say that there is something to do."""
        self._watcher.send()
