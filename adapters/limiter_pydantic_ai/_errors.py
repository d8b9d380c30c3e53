"""The refusals of a limiter that also are pydantic-ai's: its users handle them as such."""

from __future__ import annotations

from typing import Any

from pydantic_ai.exceptions import ConcurrencyLimitExceeded

import limiter_core
from limiter_http.requests import ErrorClasses


class LimitReached(limiter_core.LimitReached, ConcurrencyLimitExceeded):
    """The run, or the request to the model, was refused."""

    def __reduce__(self) -> Any:
        return (*super().__reduce__(), vars(self))


class WaitTimeout(LimitReached, limiter_core.WaitTimeout):
    """There was no slot within the `timeout` of the limit."""


class QueueFull(LimitReached, limiter_core.QueueFull):
    """Too many wait already."""


class Evicted(LimitReached, limiter_core.Evicted):
    """An operator ended the waiting."""


ERRORS: ErrorClasses = {
    limiter_core.LimitReached: LimitReached,
    limiter_core.WaitTimeout: WaitTimeout,
    limiter_core.QueueFull: QueueFull,
    limiter_core.Evicted: Evicted,
}
