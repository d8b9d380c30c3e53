"""Leases in a worker whose threads are green: a body that computes stops all of them.

So the keeper, which renews the leases, has to run in a thread of the system. It is a thread like
any other for the store: but what gevent makes of a thread is a greenlet of the system's thread that
started it. So one is started first that does nothing else; in there a lease of our own is taken,
which has the store start its keeper there, and keeps it busy, so that it never ends.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from limiter_core import ConcurrencyLimit, StoreError, SyncLimiter
from limiter_core.store import Store
from limiter_core.strategies import LIMIT_BY

logger = logging.getLogger("limiter")

_PATIENCE = 5.0
_MANY = 2**31 - 1


def is_gevent() -> bool:
    """Whether threads are greenlets of gevent in this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def keep_in_system_thread(store: Store, name: str) -> None:
    """Have the store's keeper run in a thread of the system, as long as this process lives.

    Args:
        store: the store.
        name: of the key that its own lease is on.
    """
    ready = threading.Event()
    limit = ConcurrencyLimit(LIMIT_BY.constant(f"{name}:workers"), _MANY)

    def keep() -> None:
        limiter = SyncLimiter(store)
        never = threading.Event()
        while True:
            try:
                lease = limiter.acquire(limit, timeout=_PATIENCE)
            except (StoreError, TimeoutError):
                ready.set()
                never.wait(1.0)
                continue
            ready.set()
            while not lease.lost:
                never.wait(1.0)

    start_system_thread(keep)
    ready.wait(_PATIENCE)


def start_system_thread(run: Callable[[], object]) -> None:
    """Start a thread of the system, whatever gevent has made of threads."""
    monkey: Any = import_module("gevent.monkey")
    start: Any = monkey.get_original("_thread", "start_new_thread")

    def guarded() -> None:
        try:
            run()
        except Exception:
            logger.exception("the leases of this worker are renewed by its main thread only")

    start(guarded, ())


class MainHub:
    """From any thread of the system into gevent's loop of the thread that makes this.

    Args:
        deliver: called there, in a greenlet of its own, as often as anybody says that there is
            something to do, or less often.
    """

    def __init__(self, deliver: Callable[[], object]) -> None:
        gevent: Any = import_module("gevent")
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._watcher.start(lambda: gevent.spawn(deliver))

    def wake(self) -> None:
        """Say that there is something to do."""
        self._watcher.send()
