"""Connections that are refused or fail: for how long no other is opened; one policy per store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from redis.exceptions import AuthenticationError, RedisError

from limiter_core.backoff import backoff
from limiter_core.system_clock import system_clock as time

FIRST, LONGEST = 0.1, 2.0
"""Seconds between two attempts to connect, at first and in the long run."""

LONGEST_REFUSED = 5.0
"""Where it is the password that is wrong: passwords rotate, but servers log each try."""


FIRST_PATIENCE = 1.0
"""Seconds that a call is repeated before any server of a store has taken a connection."""


class Backoff:
    """One thing that is tried again, with pauses that grow.

    Args:
        longest: seconds at the most.
    """

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._failures = 0
        self._until = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it may be tried."""
        return now >= self._until

    def failed(self, longest: float | None = None) -> None:
        """Note a failure."""
        pause = backoff(self._failures, FIRST, self._longest if longest is None else longest)
        self._failures += 1
        self._until = time.monotonic() + pause

    def over(self) -> None:
        """Note a success."""
        self._failures, self._until = 0, 0.0


class Refusals:
    """The credentials of a store, as its server sees them.

    After it refused them, calls fail at once for a while, in place of asking it again.
    """

    def __init__(self) -> None:
        self._backoff = Backoff(LONGEST_REFUSED)
        self._error: RedisError | None = None
        self._was_taken = False

    def patience(self, usual: float) -> float:
        """Return the seconds that a call is repeated.

        Not for long while none was ever taken: the URL may be wrong, which is to be in the log
        soon. A caller that may wait asks again.
        """
        return usual if self._was_taken else min(usual, FIRST_PATIENCE)

    def check(self) -> None:
        """Do not connect if it was refused a moment ago.

        Raises:
            AuthenticationError: it was.
        """
        error = self._error
        if error is not None and not self._backoff.is_due(time.monotonic()):
            raise type(error)(*error.args)

    def note(self, error: BaseException) -> None:
        """Note why a connection, or a command, failed."""
        if isinstance(error, AuthenticationError) and self._backoff.is_due(time.monotonic()):
            self._error = error
            self._backoff.failed()

    def over(self) -> None:
        """Note that a server took them."""
        self._was_taken = True
        if self._error is not None:
            self._error = None
            self._backoff.over()

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """Note what becomes of a connection that is opened."""
        try:
            yield
        except Exception as error:
            self.note(error)
            raise
        self.over()
