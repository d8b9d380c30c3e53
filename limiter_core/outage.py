"""The log of a store that cannot be used: at the begin, from time to time, and at the end."""

from __future__ import annotations

import logging
import math
import os
import weakref

from limiter_core._store_outages import outage_of
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock

__all__ = ("Outage", "RepeatedWarning", "shared_outage")

logger = logging.getLogger("limiter")

SAY_AGAIN = 60.0
"""Seconds between two warnings of one outage."""


class Outage:
    """Warns of one trouble, however often it is met.

    Args:
        what: cannot be done meanwhile, for people.
        end: what to say when it is over; None for nothing.
        store: names the store, if its calls cannot be answered: observers are sent its outage.

    Attributes:
        since: when it began, on the monotonic clock; None while all is well.
    """

    def __init__(self, what: str, end: str | None = None, store: str | None = None) -> None:
        self._what = what
        self._end = end
        self._of_store = None if store is None else outage_of(store)
        self._lock = new_lock()
        self._say_at = 0.0
        self.since: float | None = None

    def began(self, error: BaseException, *, unknown: bool = False) -> None:
        """Note a failure, and warn if it is time.

        Args:
            error: says where the store is, and what is wrong.
            unknown: whether its traceback is worth a look.
        """
        if self._of_store is not None:
            self._of_store.began(error)
        now = time.monotonic()
        with self._lock:
            since = self.since
            if since is not None and now < self._say_at:
                return
            self.since = now if since is None else since
            self._say_at = now + SAY_AGAIN
        so_far = "" if since is None else f" (for {now - since:.0f} s so far)"
        logger.warning("%s%s: %s", self._what, so_far, error, exc_info=error if unknown else None)

    def over(self) -> None:
        """Note a success."""
        with self._lock:
            since = self.since
            self.since = None
        if self._of_store is not None:
            self._of_store.over()
        if since is not None and self._end is not None:
            logger.warning("%s after %.1f s", self._end, time.monotonic() - since)

    def after_fork_in_child(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = new_lock()


class _Shared:
    """The outages that stores of this process share; the lock is held for moments."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.outages: weakref.WeakValueDictionary[tuple[str, str], Outage]
        self.outages = weakref.WeakValueDictionary()


_shared = _Shared()


def shared_outage(
    where: str, what: str, end: str | None = None, *, stops_calls: bool = False
) -> Outage:
    """Return the outage of a store for all of this process that use it: one warning, not many.

    Args:
        where: names the store.
        what: as `Outage` has it; with `where`, it says whose outage it is.
        end: as `Outage` has it.
        stops_calls: whether calls cannot be answered: observers are sent the outage.
    """
    with _shared.lock:
        found = _shared.outages.get((where, what))
        if found is None:
            store = where if stops_calls else None
            found = _shared.outages[where, what] = Outage(what, end, store)
        return found


class RepeatedWarning:
    """Warns of what may happen any number of times: at once, then at most every minute.

    Args:
        what: happened, for people.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = new_lock()
        self._say_at = -math.inf
        self._unsaid = 0

    def note(self, error: BaseException, about: str = "", *, unknown: bool = False) -> None:
        """Note that it happened, and warn if it is time, with how often it did meanwhile.

        Args:
            error: why.
            about: what it happened to, for people.
            unknown: whether the error's traceback is worth a look.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._say_at:
                self._unsaid += 1
                return
            self._say_at = now + SAY_AGAIN
            unsaid, self._unsaid = self._unsaid, 0
        more = f" ({unsaid} more since the last warning)" if unsaid else ""
        what = f"{self._what} {about}" if about else self._what
        logger.warning("%s%s: %s", what, more, error, exc_info=error if unknown else None)


def _after_fork_in_child() -> None:
    _shared.lock = new_lock()
    for outage in list(_shared.outages.values()):
        outage.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
