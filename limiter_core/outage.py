"""What is said of a store that cannot be used: when it begins, now and then, and at its end."""

from __future__ import annotations

import logging
import math

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock

__all__ = ("Outage", "RepeatedWarning")

logger = logging.getLogger("limiter")

SAY_AGAIN = 60.0
"""Seconds between two warnings of one outage."""


class Outage:
    """Warns of one trouble, however often it is met.

    Args:
        what: cannot be done meanwhile, for people.
        end: what to say when it is over; None for nothing.

    Attributes:
        since: when it began, on the monotonic clock; None while all is well.
    """

    def __init__(self, what: str, end: str | None = None) -> None:
        self._what = what
        self._end = end
        self._lock = new_lock()
        self._say_at = 0.0
        self.since: float | None = None

    def began(self, error: BaseException, *, unknown: bool = False) -> None:
        """Note a failure, and warn if it is time.

        Args:
            error: says where the store is, and what is wrong.
            unknown: whether its traceback is worth a look.
        """
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
        if since is not None and self._end is not None:
            logger.warning("%s after %.1f s", self._end, time.monotonic() - since)


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

    def note(self, error: BaseException) -> None:
        """Note that it happened, and warn if it is time, with how often it did meanwhile."""
        now = time.monotonic()
        with self._lock:
            if now < self._say_at:
                self._unsaid += 1
                return
            self._say_at = now + SAY_AGAIN
            unsaid, self._unsaid = self._unsaid, 0
        more = f" ({unsaid} more since it was last said)" if unsaid else ""
        logger.warning("%s%s: %s", self._what, more, error)
