"""The errors of a limiter that also are errors of aiohttp: its users handle them as such."""

from __future__ import annotations

from typing import Any

import aiohttp

import limiter_core
from limiter_http.requests import ErrorClasses


class LimitReached(limiter_core.LimitReached, aiohttp.ConnectionTimeoutError):
    """The request was refused."""

    def __reduce__(self) -> Any:
        return (*super().__reduce__(), vars(self))


class WaitTimeout(LimitReached, limiter_core.WaitTimeout):
    """There was no slot within the `timeout` of a limit."""


class QueueFull(LimitReached, limiter_core.QueueFull):
    """Too many wait already."""


class Evicted(LimitReached, limiter_core.Evicted):
    """An operator ended the waiting."""


class LeaseLost(limiter_core.LeaseLost, aiohttp.ClientPayloadError):
    """The slot is gone, so no more is read."""

    def __reduce__(self) -> Any:
        return (*super().__reduce__(), vars(self))


class Preempted(LeaseLost, limiter_core.Preempted):
    """A newer request took the slot."""


ERRORS: ErrorClasses = {
    limiter_core.LimitReached: LimitReached,
    limiter_core.WaitTimeout: WaitTimeout,
    limiter_core.QueueFull: QueueFull,
    limiter_core.Evicted: Evicted,
    limiter_core.LeaseLost: LeaseLost,
    limiter_core.Preempted: Preempted,
}
