"""Work that the garbage collector gives rise to, done where it can do no harm.

A finalizer runs in the middle of any code of its thread: perhaps a step of a store that has a lock.
So it takes no lock, and what is to be done is done in a thread of its own. That is a rare thing.
"""

from __future__ import annotations

import atexit
import gc
import logging
import operator
import os
from collections import deque
from collections.abc import Callable
from functools import partial

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_system_local, start_bare_thread

logger = logging.getLogger("limiter")

EXIT_PATIENCE = 1.0
"""Seconds that the end of a process waits for work that is left."""

_phases: dict[str, object] = {}
"""What the collector of cycles does: the last key is "start" while it is at work.

Noted by functions that are not written in Python: in one that is, what a signal raises would be
swallowed, and the collector is at work all the time.
"""
_phases_here = new_system_local()
"""The same of each thread, as attributes: with which information it was called last."""
gc.callbacks.extend(
    (_phases.pop, partial(operator.setitem, _phases), partial(setattr, _phases_here))
)

_after_collecting: deque[Callable[[], object]] = deque()


def is_collecting() -> bool:
    """Whether the collector of cycles is at work in this thread: then it called this code."""
    if next(reversed(_phases), "stop") != "start":
        return False
    # Each collection has information of its own.
    return getattr(_phases_here, "start", None) is _phases.get("start")


def when_finalized(judge: Callable[[], object]) -> None:
    """Call a function when all that is collected together has been finalized; for weak references.

    The collector of cycles calls these first. But a generator or a `__del__` among what it collects
    may yet release a lease.
    """
    if not is_collecting():
        judge()
        return
    _after_collecting.append(judge)
    if _judge_all not in gc.callbacks:
        gc.callbacks.append(_judge_all)


def _judge_all(phase: str, info: object) -> None:  # noqa: ARG001
    if phase != "stop":
        return
    gc.callbacks.remove(_judge_all)  # the last: the collector skips no other callback
    failure: Exception | None = None
    while _after_collecting:
        try:
            _after_collecting.popleft()()
        except Exception as error:  # noqa: BLE001  (where warnings are errors; it is raised below)
            failure = error
    if failure is not None:
        raise failure


class _Worker:
    """Does one thing after the other in a thread, which there is while there is anything to do.

    Args:
        failed: what is logged of one that raises.
    """

    def __init__(self, failed: str) -> None:
        self._failed = failed
        self._work: deque[Callable[[], object]] = deque()
        self._threads: deque[None] = deque()
        """As many as there are threads that run, or are about to."""

    def do_later(self, work: Callable[[], object]) -> None:
        self._work.append(work)
        if not self._threads:
            self._threads.append(None)
            try:
                start_bare_thread(self._run)
            except RuntimeError:  # the process ends, or has too many threads: with the next one
                self._threads.pop()

    def is_busy(self) -> bool:
        return bool(self._work or self._threads)

    def forget(self) -> None:
        self._threads.clear()
        self._work.clear()

    def _run(self) -> None:
        while self._work:
            try:
                self._work.popleft()()
            except IndexError:
                break  # another thread was faster
            except Exception:
                logger.exception(self._failed)
        self._threads.pop()
        if self._work and not self._threads:  # it came while this one was ending
            self._threads.append(None)
            self._run()


# Two, so that no slot waits for an observer that takes long.
_releases = _Worker("could not release a lease that was garbage-collected")
_notifications = _Worker("could not notify observers")

do_later = _releases.do_later
"""Have some work done soon, in a thread of the background; for finalizers."""

notify_later = _notifications.do_later
"""Have observers called soon, in another such thread."""


def has_work() -> bool:
    """Whether such work is to be done, or is being done."""
    return _releases.is_busy() or _notifications.is_busy()


def _finish() -> None:
    """Wait until all is done, for a while: the process ends."""
    until = time.monotonic() + EXIT_PATIENCE
    while has_work() and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_finish)


def _after_fork_in_child() -> None:
    _after_collecting.clear()
    for worker in (_releases, _notifications):
        worker.forget()  # the parent's threads are not here, and its leases are its own


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
