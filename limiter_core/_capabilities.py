"""What stores declare, and what the rule S17 leaves to each. Import it from `store`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

logger = logging.getLogger("limiter")

OFFERS = 3
"""Unclaimed offers after which a durable ticket goes behind all others (S17)."""

DEFERRED = 60.0
"""Seconds for which it stays there."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do; the limiter and the contract suite ask it.

    Attributes:
        durable: tickets with a payload (S17 to S19).
        sync: it has a sync face.
        asynchronous: it has an async face.
        spans_scopes: one request may name keys of several scopes.
        suspends: operations of the async face really wait (for a network), so they can be
            cancelled halfway.
        sure_release: a release of the async face that is given the keys is on its way before it
            first suspends, is carried out even if its caller is cancelled, and ends in bounded
            time. Where it is not so the limiter shields it, at some cost for every call.
        policies: limits by name, and a log of changes (S22, S23): its faces are a `PolicyStore` and
            an `AsyncPolicyStore` (`limiter_core.policies`), too.
    """

    durable: bool = True
    sync: bool = True
    asynchronous: bool = True
    spans_scopes: bool = True
    suspends: bool = True
    sure_release: bool = False
    policies: bool = False


def log_deferred(ticket: str, key: str, name: str) -> None:
    """Warn that a job did not claim its slots; each store does, in the process of that step."""
    logger.warning(
        "job %s was offered a slot of %s %d times, and no worker of %s came for it: "
        "others go first for %g s",
        ticket,
        key,
        OFFERS,
        name,
        DEFERRED,
    )
