"""The log of a store that cannot be used: at the begin, from time to time, and at the end."""

from __future__ import annotations

import logging
import math
import os
import weakref

from limiter_core._store_outages import outage_of
from limiter_core.durations import duration_text
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock

__all__ = ("Outage", "RepeatedWarning", "outage_of_calls", "shared_outage")

logger = logging.getLogger("limiter")

SAY_AGAIN = 60.0
"""Seconds between two warnings of one outage."""

_BACK = "the store is back"

_QUIET = 15.0
"""Seconds without a failure after which any success ends an outage: the callers that asked for the
keys that failed may be gone. Longer than a call pauses that waits, and then asks a silent node in
vain.
"""

_MOST_KEYS = 100
"""Keys that an outage has to end for; of more, the others are taken to come back with these."""


class Outage:
    """Warns of one trouble, however often it is met.

    Of a cluster one node may be away: then some keys fail again and again, while others work. So a
    success ends the outage of its own key, and the outage is over when it is for each key.

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
        self._failed_at = 0.0
        self._keys: set[str] = set()
        self.since: float | None = None

    def began(self, error: BaseException, key: str = "", *, unknown: bool = False) -> None:
        """Note a failure, and warn if it is time.

        Args:
            error: says where the store is, and what is wrong.
            key: what could not be asked for.
            unknown: whether its traceback is worth a look.
        """
        if self._of_store is not None:
            self._of_store.began(error)
        now = time.monotonic()
        with self._lock:
            since = self.since
            self._failed_at = now
            if len(self._keys) < _MOST_KEYS:
                self._keys.add(key)
            if since is not None and now < self._say_at:
                return
            self.since = now if since is None else since
            self._say_at = now + SAY_AGAIN
        so_far = "" if since is None else f" (for {duration_text(now - since)} so far)"
        logger.warning("%s%s: %s", self._what, so_far, error, exc_info=error if unknown else None)

    def over(self, key: str = "") -> None:
        """Note a success, of that key."""
        with self._lock:
            since = self.since
            self._keys.discard(key)
            if self._keys and time.monotonic() < self._failed_at + _QUIET:
                return
            self._keys.clear()
            self.since = None
        if self._of_store is not None:
            self._of_store.over()
        if since is not None and self._end is not None:
            logger.warning("%s after %s", self._end, duration_text(time.monotonic() - since))

    def after_fork_in_child(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = new_lock()


class _Shared:
    """The outages that stores of this process share; the lock is held for moments."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.outages: weakref.WeakValueDictionary[tuple[str, str], Outage]
        self.outages = weakref.WeakValueDictionary()

    def outage(self, where: str, what: str, end: str | None, store: str | None) -> Outage:
        """Return the outage of this name, the same for all."""
        with self.lock:
            found = self.outages.get((where, what))
            if found is None:
                found = self.outages[where, what] = Outage(what, end, store)
            return found


_shared = _Shared()


def outage_of_calls(store: str | None, *, admits: bool) -> Outage:
    """Return what logs that calls cannot be answered, and that they can be again.

    Args:
        store: names the store, whose users in this process share one, and observers are sent it;
            None for one that is shared with nobody, and logged alone.
        admits: whether calls run without a slot meanwhile; else they wait.
    """
    meanwhile = "run without a slot" if admits else "wait"
    what = f"calls {meanwhile} until the store can be used"
    if store is None:
        return Outage(what, _BACK)
    return _shared.outage(store, what, _BACK, store)


def shared_outage(where: str, what: str) -> Outage:
    """Return the trouble of a store for all of this process that use it: one warning, not many.

    Args:
        where: names the store.
        what: as `Outage` has it; with `where`, it says whose it is.
    """
    return _shared.outage(where, what, None, None)


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
