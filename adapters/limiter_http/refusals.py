"""What a refusal means for the client of a server whose requests are limited."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from limiter_core import Lease, LeaseLost, LimitReached, StoreError, Superseded

__all__ = ("REFUSALS", "Refusal", "refusal_of")

REFUSALS = (LimitReached, Superseded, LeaseLost, StoreError)
"""What ends a request that has no response yet, and is no fault of the code."""

_DETAILS = {
    "full": "All slots of this limit are in use.",
    "queue_full": "All slots of this limit are in use, and so are all places in its queue.",
    "timeout": "No slot of this limit was free in time.",
    "superseded": "A newer {0} took the place of this one.",
    "evicted": "An operator ended the waiting of this {0}.",
    "lost": "The slot of this {0} was taken from it.",
    "unavailable": "{1}s cannot be admitted at the moment.",
}

_logger = logging.getLogger("limiter")


class Refusal(NamedTuple):
    """Why a request is refused; nothing of it is secret.

    Attributes:
        reason: a word of `_DETAILS`.
        detail: a sentence.
        limit: the name of the limit, empty if it is not known.
        retry_after: seconds after which there may be a slot, None if that is not known.
    """

    reason: str
    detail: str
    limit: str = ""
    retry_after: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return `reason`, and `limit` if it is known."""
        return {"reason": self.reason, **({"limit": self.limit} if self.limit else {})}


def refusal_of(error: Exception, lease: Lease | None, noun: str = "request") -> Refusal | None:
    """Return what to answer; None if the error is not about the slot of the request: the app's own.

    A store that is unavailable is logged.

    Args:
        error: one of `REFUSALS`.
        lease: of the request; None before it has a slot.
        noun: what is refused.
    """
    if lease is not None and not (isinstance(error, LeaseLost) and error.lease_id == lease.id):
        return None
    reason, limit, retry_after = "lost", "", None
    if isinstance(error, StoreError):
        _logger.warning("a %s was refused, since the store is unavailable: %s", noun, error)
        reason = "unavailable"
    elif isinstance(error, LimitReached):
        reason, limit, retry_after = error.reason, error.name, error.retry_after
    elif isinstance(error, Superseded):
        reason, limit = error.reason, error.name
    return Refusal(reason, _DETAILS[reason].format(noun, noun.capitalize()), limit, retry_after)
