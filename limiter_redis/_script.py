"""The one script: how it begins, what steps share, a file per step, and the loop over them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

_FILES = (
    "entry",
    "state",
    "holders",
    "tickets",
    "admission",
    "turns",
    "acquire",
    "release",
    "evict",
    "renew",
    "configure",
    "sweep",
    "find",
    "offers",
    "inspect",
    "run",
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it, and the digest by which EVALSHA calls it."""

    text: bytes
    sha: bytes

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script of a text."""
        encoded = text.encode()
        return cls(encoded, hashlib.sha1(encoded, usedforsecurity=False).hexdigest().encode())


def _load() -> str:
    folder = resources.files("limiter_redis") / "lua"
    return "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in _FILES)


SCRIPT = Script.of(_load())
"""The store's script."""
