"""`SharedLimiter`: a limit of this package as a concurrency limiter of pydantic-ai."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from pydantic_ai.concurrency import AbstractConcurrencyLimiter
from pydantic_ai.exceptions import ConcurrencyLimitExceeded

from limiter_core import (
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    Lease,
    Limiter,
    LimitReached,
)
from limiter_core.brief import brief
from limiter_core.strategies import is_constant
from limiter_core.streams import check_async_limits, release_soon
from limiter_http.errors import client_error


class _View(ArgumentView):
    adapter = "pydantic_ai"


class SharedLimiter(AbstractConcurrencyLimiter):
    """A concurrency limiter for `ConcurrencyLimitedModel` and for `Agent(max_concurrency=...)`.

    Give it to as many models and agents as are to share its limit. Those of other processes share
    it as well, if their limiters have the same store.

    pydantic-ai does not say which slot it releases, so all slots are of one key, and the oldest is
    released. For the same reason no run is cancelled if its slot is lost.

    Args:
        limiter: what takes the slots.
        limit: a limit by `LIMIT_BY.constant(...)`. Its numbers and `fair_by` may look at `source`:
            "model:gpt-5", "agent:planner".

    Raises:
        ConfigurationError: that is no `Limiter`; or the limit has not the same key and cost for all
            calls, or preempts holders.
    """

    def __init__(self, limiter: Limiter, limit: ConcurrencyLimit) -> None:
        check_async_limits(limiter, limit, "SharedLimiter")
        self._limiter = limiter
        self._limit = _checked(limit)
        self._leases: deque[Lease] = deque()
        self._process = os.getpid()

    async def acquire(self, source: str) -> None:
        """Take a slot; waits for one as the limit says.

        Args:
            source: what asks for it, as "model:gpt-5".

        Raises:
            LimitReached: refused; also pydantic-ai's `ConcurrencyLimitExceeded`.
            Superseded, StoreUnavailable: as `Limiter.acquire`.
        """
        try:
            lease = await self._limiter.acquire(self._limit, _View({"source": source}))
        except LimitReached as error:
            raise client_error(error, {LimitReached: ConcurrencyLimitExceeded}) from error
        self._own_leases().append(lease)

    def release(self) -> None:
        """Release the oldest slot; from any task, thread or event loop. Never waits.

        Raises:
            RuntimeError: there is none.
        """
        try:
            lease = self._own_leases().popleft()
        except IndexError:
            raise RuntimeError("release() was called more often than acquire()") from None
        release_soon(lease)

    def _own_leases(self) -> deque[Lease]:
        """Return the leases of this process, the oldest first; those of its parent are not its."""
        if self._process != os.getpid():
            self._leases, self._process = deque(), os.getpid()
        return self._leases

    def __reduce__(self) -> Any:
        # A copy has no leases: else a slot would be released for it and for the original.
        return type(self), (self._limiter, self._limit)

    def __repr__(self) -> str:
        return f"SharedLimiter({self._limiter!r}, {self._limit!r})"


def _checked(limit: object) -> ConcurrencyLimit:
    """Return the limit if it does not matter which of its slots is released.

    Raises:
        ConfigurationError: it does.
    """
    why = "pydantic-ai does not say which slot it releases"
    if not isinstance(limit, ConcurrencyLimit):
        raise ConfigurationError(
            f"SharedLimiter needs one ConcurrencyLimit, got {brief(limit)}: {why}"
        )
    if not is_constant(limit.by):
        raise ConfigurationError(
            f"SharedLimiter needs a limit with one key, and {limit.by!r} may have several: {why}. "
            'Write ConcurrencyLimit(LIMIT_BY.constant("name"), ...), and a SharedLimiter for each '
            "key"
        )
    if callable(limit.cost):
        raise ConfigurationError(
            f"SharedLimiter needs a limit whose cost is a number, got {brief(limit.cost)}: {why}"
        )
    if limit.on_conflict is ConflictResolution.CANCEL_RUNNING:
        raise ConfigurationError(
            "SharedLimiter cannot preempt the holders of slots, as CANCEL_RUNNING asks for: "
            f"{why}. KEEP_LATEST supersedes those that wait"
        )
    return limit
