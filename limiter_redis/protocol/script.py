"""The one script: how it begins, what steps share, a file per step, and the loop over them.

Where the server has functions (Redis 7, Valkey) it is loaded as a library of two, which differ in
whether they may run where memory is full; else it is called by its digest.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from limiter_core import __version__

_SHARED = (
    "state",
    "ends",
    "queue",
    "restore",
    "presence",
    "holders",
    "tickets",
    "policies",
    "layout",
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
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
"""Lines of comments: the server gets none, so it has a fifth less to compile and to keep."""

_NAME = re.compile(r"^--- (\w+)\n", re.MULTILINE)
"""The line before each file in the one that a wheel has."""

_FUNCTION = re.compile(
    r"^function (?P<group>[a-z]+)\.(?P<name>[a-z_]+)(?P<rest>\([^\n]* end$|\(.*?^end$)",
    re.MULTILINE | re.DOTALL,
)


LIBRARY_PREFIX = "limiter_"
"""What begins the names of libraries, and of functions; a digest follows, so releases differ."""

RELEASE = f"concurrency-limits {__version__}"
"""Describes each function: which release has loaded it."""

FULL = "_full"
"""What ends the name of the function that may run where memory is full."""

_CALLED_AS_SCRIPT = "return run(KEYS, ARGV)\n"

# While it is loaded, Valkey offers no `string` and no `redis.call`: so the first call makes all.
_LIBRARY = f"""\
local run
local function made()
%s
return run
end
local function call_it(keys, args)
  run = run or made()
  return run(keys, args, true)
end
local of = '{RELEASE}'
redis.register_function{{function_name = '%s', description = of, callback = call_it}}
redis.register_function{{
  function_name = '%s{FULL}', description = of, callback = call_it, flags = {{'allow-oom'}}
}}
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it, the digest by which EVALSHA calls it, and the same as a library.

    Attributes:
        text: for EVAL.
        sha: for EVALSHA.
        library: for FUNCTION LOAD.
        function: the name of the library, and of the function for FCALL; and with `FULL` of the
            one that may also run where memory is full.
    """

    text: bytes
    sha: bytes
    library: str
    function: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script of a text."""
        body = text.removesuffix(_CALLED_AS_SCRIPT)
        assert body != text, "it does not end with the call any more"
        name = LIBRARY_PREFIX + _digest(_LIBRARY + body)
        library = f"#!lua name={name}\n{_LIBRARY % (body, name, name)}"
        return cls(text.encode(), _digest(text).encode(), library, name)

    def waking(self, wake: str) -> Script:
        """Return the script with another function `wake`; state.lua says what that is for."""
        return self._with(_WAKES_NOBODY, wake)

    def refusing(self, refusal: str) -> Script:
        """Return the script with another function `refusal`; see run.lua."""
        return self._with(_REFUSES_NOTHING, refusal)

    def _with(self, function: str, other: str) -> Script:
        text = self.text.decode()
        assert text.count(function) == 1, "it stands no more where it did"
        return Script.of(text.replace(function, other))


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_WAKES_NOBODY = "local function wake(id) return false end\n"
_REFUSES_NOTHING = "local function refusal() return nil end\n"


def _load() -> str:
    files = _read()
    general = "\n".join(files[name] for name in _SHARED + _STEPS)
    made: dict[str, str] = {}
    for each in _FUNCTION.finditer(general):
        made.setdefault(each["group"], "")
        made[each["group"]] += (
            f"if name == '{each['name']}' then return function{each['rest']} end\n"
        )
    groups = "".join(f"if group == '{group}' then\n{made[group]}end\n" for group in made)
    make = f"local function make(group, name)\n{groups}end\n"
    return "\n".join(
        (files["entry"], files["contended"], _FUNCTION.sub("", general), make, files["run"])
    )


def _read() -> dict[str, str]:
    """Return the files in lua/ by their names, without comments. In a wheel they are one."""
    folder = resources.files("limiter_redis.protocol") / "lua"
    together = folder / "together.lua"
    if together.is_file():
        _, *parts = _NAME.split(together.read_text("utf-8"))
        return dict(zip(parts[::2], parts[1::2], strict=True))
    names = ("entry", "contended", *_SHARED, *_STEPS, "run")
    texts = ((folder / f"{name}.lua").read_text("utf-8") for name in names)
    return {name: _COMMENT.sub("", text) for name, text in zip(names, texts, strict=True)}


SCRIPT = Script.of(_load())
"""The store's script."""
