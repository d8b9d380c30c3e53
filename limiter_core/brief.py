"""What was given, as errors show it: of a bounded length, and without passwords."""

from __future__ import annotations

import re

__all__ = ("LONGEST", "brief", "cut", "without_secrets")

LONGEST = 200
"""Characters of what was given that an error shows."""

_OPTION = re.compile(r"([?&;#][^=&;#]*=)([^&;#]*)")
"""An option's name, and its value."""

_NO_SECRETS = ("db", "namespace")


def brief(given: object) -> str:
    """Return what a user gave: a URL in it without its password, and at most `LONGEST` of it."""
    try:
        text = repr(given)
    except Exception:  # noqa: BLE001  (of a class of a user's, or a number of too many digits)
        text = f"a value of {type(given).__qualname__}"
    return cut(_without_secrets(text) if "://" in text else text)


def cut(text: str, longest: int = LONGEST) -> str:
    """Return a text, or its beginning if it is long."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def without_secrets(url: str) -> str:
    """Return a URL as it can be shown: no user, no password, few values of options.

    It may be no URL at all: anything before the last `@` can be a password.
    """
    return cut(_without_secrets(url))


def _without_secrets(url: str) -> str:
    head, at, tail = url.rpartition("@")
    if at:
        scheme, separator, _ = head.partition("://")
        head = f"{scheme}://***@" if separator else "***@"
    return (head if at else "") + _OPTION.sub(_hide, tail)


def _hide(option: re.Match[str]) -> str:
    name, value = option.groups()
    return name + (value if name[1:-1] in _NO_SECRETS else "***")
