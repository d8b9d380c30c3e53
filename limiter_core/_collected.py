"""Work that the garbage collector gives rise to, done where it can do no harm.

A finalizer runs amid whatever its thread is doing: perhaps a step of a store, with its lock taken.
So it takes no lock, and what is to be done is done in a thread of its own. That is a rare thing.
"""

from __future__ import annotations

import logging
import os
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("limiter")

_work: deque[Callable[[], object]] = deque()
_threads: deque[None] = deque()
"""As many as there are threads at work, or about to be."""


def do_later(work: Callable[[], object]) -> None:
    """Have some work done soon, in a thread of the background; for finalizers."""
    _work.append(work)
    if not _threads:
        _threads.append(None)
        try:
            start_new_thread(_run, ())
        except RuntimeError:  # the process ends, or has too many threads: with the next one
            _threads.pop()


def _run() -> None:
    while _work:
        try:
            _work.popleft()()
        except IndexError:
            break  # another thread was faster
        except Exception:
            logger.exception("could not let go of a lease that was collected")
    _threads.pop()
    if _work and not _threads:  # it came while this one was ending
        _threads.append(None)
        _run()


def _after_fork_in_child() -> None:
    _threads.clear()  # the parent's are not here
    _work.clear()  # and its leases are its own


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
