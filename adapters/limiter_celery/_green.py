"""Leases in a worker whose threads are green: a body that computes stops all of them.

So the store's keeper, which renews the leases, has to run in a thread of the system. What gevent
makes of a thread is a greenlet of the system's thread that started it: so one is started that does
nothing else than to start the keeper, which makes its connections there. They must not be mixed
with those of the main thread: gevent waits for a socket in the thread that opened it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")

_PATIENCE = 2.0


def is_gevent() -> bool:
    """Whether threads are greenlets of gevent in this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def keep_in_system_thread(store: Store) -> None:
    """Have the store's keeper run in a thread of the system, as long as this process lives.

    Before the gate is made: a store that gives notices keeps its keeper running.

    Args:
        store: the store; one without a keeper needs nothing.
    """
    keeper: Any = getattr(store, "keeper", None)
    if keeper is None:
        return
    started: list[bool] = []  # plain: locks of gevent are for one thread

    def keep() -> None:
        keeper.ensure_running()
        started.append(True)
        while True:
            time.sleep(3600.0)  # gevent's own: it lets the keeper run meanwhile

    _start_system_thread(keep)
    # Nothing else happens until it is at work: what it imports for that, another thread of the
    # system must not import at the same time, since gevent's locks of imports do not reach there.
    give_up_at = time.monotonic() + _PATIENCE
    while not (started and keeper.listening) and time.monotonic() < give_up_at:
        time.sleep(0.01)


def _start_system_thread(run: Callable[[], object]) -> None:
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
