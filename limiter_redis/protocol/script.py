"""The one script: how it begins, what steps share, a file per step, and the loop over them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

_SHARED = (
    "state",
    "ends",
    "queue",
    "restore",
    "presence",
    "holders",
    "tickets",
    "policies",
    "admission",
    "turns",
)
_STEPS = (
    "acquire",
    "release",
    "evict",
    "renew",
    "configure",
    "sweep",
    "find",
    "offers",
    "missed",
    "inspect",
)
_FUNCTION = re.compile(
    r"^function (?P<group>[a-z]+)\.(?P<name>[a-z_]+)(?P<rest>\([^\n]* end$|\(.*?^end$)",
    re.MULTILINE | re.DOTALL,
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

    def waking(self, wake: str) -> Script:
        """Return the script with another function `wake`; state.lua says what that is for."""
        text = self.text.decode()
        assert text.count(_WAKES_NOBODY) == 1, "it stands no more where it did"
        return Script.of(text.replace(_WAKES_NOBODY, wake))


_WAKES_NOBODY = "local function wake(id) return false end\n"


def _load() -> str:
    general = "\n".join(_read(name) for name in _SHARED + _STEPS)
    made: dict[str, str] = {}
    for each in _FUNCTION.finditer(general):
        made.setdefault(each["group"], "")
        made[each["group"]] += (
            f"if name == '{each['name']}' then return function{each['rest']} end\n"
        )
    groups = "".join(f"if group == '{group}' then\n{made[group]}end\n" for group in made)
    make = f"local function make(group, name)\n{groups}end\n"
    return "\n".join((_read("entry"), _FUNCTION.sub("", general), make, _read("run")))


def _read(name: str) -> str:
    return (resources.files("limiter_redis.protocol") / "lua" / f"{name}.lua").read_text("utf-8")


SCRIPT = Script.of(_load())
"""The store's script."""
