"""Checks of what the middleware and the dependency are given."""

from __future__ import annotations

from limiter_core import ConfigurationError, Limiter


def check_limiter(limiter: object, owner: str) -> Limiter:
    """Return a limiter for event loops.

    Args:
        limiter: what was given.
        owner: what needs it, for the error.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(limiter, Limiter):
        return limiter
    raise ConfigurationError(f"{owner} needs a Limiter, got {limiter!r}")


def check_on_refused(status: object) -> int:
    """Return the status of refusals.

    Raises:
        ConfigurationError: it is neither 503 nor 429.
    """
    if type(status) is int and status in (503, 429):
        return status
    raise ConfigurationError(
        f"on_refused is 503, or 429 where a limit is the client's own, got {status!r}"
    )
