"""What values may be: of a limit, and of whatever else is given a number or a duration."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError

PRIORITY_RANGE = 2**31
"""Priorities lie strictly between minus and plus this; every store can order them exactly."""

MAX_NUMBER = 10**15
"""Of slots, and of waiters: every store can count them, and a hundredfold of them, exactly."""

MAX_NAME_LENGTH = 100
"""Characters of a limit's name."""

MAX_LABEL_LENGTH = 1000
"""Characters. Each holder and each waiter has its label in the store."""


def check_number(value: object, what: str, *, least: int) -> int:
    """Return `value` if it is a whole number from `least` to `MAX_NUMBER`.

    Raises:
        ConfigurationError: it is not; says what was given and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{what} must be a whole number, got {brief(value)}")
    if value < least:
        raise ConfigurationError(f"{what} must be at least {least}, got {brief(value)}")
    if value > MAX_NUMBER:
        given = repr(value) if value < MAX_NUMBER**2 else "more"
        raise ConfigurationError(f"{what} must be at most {MAX_NUMBER:,}, got {given}")
    return int(value)  # of an enum's member that is a number, the number


def check_priority(value: object) -> int:
    """Return `value` if it can be a priority.

    Raises:
        ConfigurationError: it is no whole number, or outside of `PRIORITY_RANGE`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"priority must be a whole number, got {brief(value)}")
    if abs(value) >= PRIORITY_RANGE:
        raise ConfigurationError(f"priority must lie within ±2**31, got {brief(value)}")
    return int(value)


def check_cost(cost: int, max_concurrent: int) -> None:
    """Refuse a cost that could never be admitted; under a limit of 0 nothing is.

    Raises:
        ConfigurationError: the cost is above the limit.
    """
    if cost > max_concurrent > 0:
        raise ConfigurationError(
            f"cost {cost} is above the limit of {max_concurrent}: such a call would wait for ever"
        )


def check_seconds(value: Any, what: str, *, zero_allowed: bool = False) -> float:
    """Return a duration in seconds: more than zero, or zero where it is allowed, and finite.

    Raises:
        ConfigurationError: it is none; says what was given and what is allowed.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ConfigurationError(f"{what} must be seconds or a timedelta, got {brief(value)}")
    too_short = seconds < 0 or (seconds == 0 and not zero_allowed)
    if too_short or not math.isfinite(seconds):
        allowed = "zero or more" if zero_allowed else "more than zero"
        raise ConfigurationError(f"{what} must be {allowed} and finite, got {brief(value)}")
    return float(seconds)


def check_timeout(value: Any) -> float | None:
    """Return a timeout in seconds, or None for "wait as long as it takes".

    Raises:
        ConfigurationError: it is no duration, negative or infinite.
    """
    return None if value is None else check_seconds(value, "timeout", zero_allowed=True)


def check_on_store_error(value: object) -> None:
    """Refuse what is none of the two things to do when the store cannot be reached.

    Raises:
        ConfigurationError: it is none; says what was given and what is allowed.
    """
    if value not in ("raise", "admit"):
        raise ConfigurationError(f'on_store_error must be "raise" or "admit", got {brief(value)}')


def check_name(value: object) -> str | None:
    """Return a limit's name, None for "by its strategy".

    Raises:
        ConfigurationError: it is no text of one line, blank, or too long.
    """
    if value is None:
        return None
    if isinstance(value, str) and len(value) > MAX_NAME_LENGTH:
        raise ConfigurationError(
            f"name must have at most {MAX_NAME_LENGTH} characters, got {len(value)}: {brief(value)}"
        )
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(f"name must be printable text, and not blank, got {brief(value)}")
    return str.__str__(value)  # of an enum's member that is text, the text


def check_scope(value: object) -> str | None:
    """Return a limit's scope, None for none.

    Raises:
        ConfigurationError: it is no text, or blank.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"scope must be text, and not blank, got {brief(value)}")
    return str.__str__(value)  # of an enum's member that is text, the text


def check_max_waiting(value: Any) -> int | None:
    """Return how many calls may wait on a key, None for any number.

    Raises:
        ConfigurationError: it is no whole number of 0 or more.
    """
    return None if value is None else check_number(value, "max_waiting", least=0)


def check_on_lost(value: Any) -> Any:
    """Return what a lost lease does to the body.

    Raises:
        ConfigurationError: it is none of the two; says what was given and what is allowed.
    """
    if value in ("cancel", "warn"):
        return value
    raise ConfigurationError(f'on_lost must be "cancel" or "warn", got {brief(value)}')


def printable(text: str) -> str:
    """Return text with a `?` for each character that is no glyph or space, such as a line break."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def short_label(label: str) -> str:
    """Return a label as it is stored: it is for people.

    It is cut after `MAX_LABEL_LENGTH` characters, and has none that logs or stores interpret:
    no line breaks, no escapes, and not the separators of traces and leases.
    """
    label = printable(label)
    return label if len(label) <= MAX_LABEL_LENGTH else f"{label[: MAX_LABEL_LENGTH - 1]}…"


def number_or_function(what: str, least: int) -> Callable[[Any], Any]:
    """Return what checks a number; a function is let through, and what it returns checked later."""

    def check(value: Any) -> Any:
        return value if callable(value) else check_number(value, what, least=least)

    return check
