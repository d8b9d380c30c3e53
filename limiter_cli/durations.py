"""Durations as an operator writes them: `30m`, `1h30m`, `90`."""

from __future__ import annotations

import re

from limiter_core import ConfigurationError

__all__ = ("duration_of",)

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms]?)", re.ASCII)
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+|\d+(?:\.\d+)?", re.ASCII)


def duration_of(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        ConfigurationError: it is none; says what was given and what is allowed.
    """
    given = text.strip()
    seconds = 0.0
    if _WHOLE.fullmatch(given):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given))
    if not seconds:
        raise ConfigurationError(
            f"a duration is a number of d, h, m or s, as in 30m or 1h30m, got {text!r}"
        )
    return seconds
