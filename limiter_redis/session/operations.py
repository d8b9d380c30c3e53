"""The operations that renew and release a request of this process."""

from __future__ import annotations

from limiter_redis.protocol import commands
from limiter_redis.session.entries import Entry


def release_of(entry: Entry) -> commands.Operation:
    """Return the operation that releases a request, and nothing but what is of its caller."""
    request = entry.request
    if request.payload is None:
        return commands.release(request.id, entry.key, for_good=entry.unsure)
    return commands.release_claim(request.id, entry.key, request.claimant, for_good=entry.unsure)


def renewal_of(entry: Entry) -> commands.Operation:
    """Return the operation that renews a request."""
    return commands.renew(entry.request.id, entry.key, entry.claimant)
