"""Checks of what an operator, or a caller of `inspect`, gives."""

from __future__ import annotations

from limiter_core._checks import check_number
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.keys import MAX_WHOLE_LENGTH
from limiter_core.limits import ConcurrencyLimit


def check_key(key: object) -> str:
    """Return a key that an operator names.

    Raises:
        ConfigurationError: it is no text, or longer than any key.
    """
    if not isinstance(key, str) or not key:
        raise ConfigurationError(
            f"a key is text, as key_for() and keys() return it, got {brief(key)}"
        )
    if len(key) > MAX_WHOLE_LENGTH:
        raise ConfigurationError(
            f"a key has at most {MAX_WHOLE_LENGTH} characters (key_for() shortens it), "
            f"got {len(key)}: {brief(key)}"
        )
    return key


def check_id(lease_id: object) -> str:
    """Return a lease's id that an operator names.

    Raises:
        ConfigurationError: it is no text.
    """
    if not isinstance(lease_id, str) or not lease_id:
        raise ConfigurationError(
            f"a lease is named by its id, as in lease.id and inspect(), got {brief(lease_id)}"
        )
    return lease_id


def check_override(limit: object) -> int:
    """Return a limit that an operator sets.

    Raises:
        ConfigurationError: it is no whole number of 0 or more.
    """
    return check_number(limit, "the limit", least=0)


def one_limit(limits: object) -> ConcurrencyLimit:
    """Return the limit, where only one makes sense.

    Raises:
        ConfigurationError: several were given.
    """
    if not isinstance(limits, ConcurrencyLimit):
        raise ConfigurationError(f"give one ConcurrencyLimit here, got {brief(limits)}")
    return limits
