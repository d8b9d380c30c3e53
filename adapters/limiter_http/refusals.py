"""What a refusal means for the client of a server whose requests are limited."""

from __future__ import annotations

import logging
from typing import NamedTuple

from limiter_core import Lease, LeaseLost, LimiterError, LimitReached, StoreError, Superseded

__all__ = ("REFUSALS", "Refusal", "ends_request", "refusal_of")

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


def ends_request(error: BaseException, lease: Lease | None) -> bool:
    """Whether an error is about the slot of the request, and not the app's own.

    Args:
        error: one of `REFUSALS`.
        lease: of the request; None before it has a slot.
    """
    return lease is None or (isinstance(error, LeaseLost) and error.lease_id == lease.id)


def refusal_of(error: LimiterError, noun: str = "request") -> Refusal:
    """Return what to answer; a store that is unavailable is logged.

    Args:
        error: one of `REFUSALS`.
        noun: what is refused.
    """
    reason, limit, retry_after = "lost", "", None
    if isinstance(error, StoreError):
        _logger.warning("a %s was refused, since the store is unavailable: %s", noun, error)
        reason = "unavailable"
    elif isinstance(error, LimitReached):
        reason, limit, retry_after = error.reason, error.name, error.retry_after
    elif isinstance(error, Superseded):
        reason, limit = error.reason, error.name
    return Refusal(reason, _DETAILS[reason].format(noun, noun.capitalize()), limit, retry_after)
