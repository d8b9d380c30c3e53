"""How values stand in commands and replies: each is one word of printable ASCII.

Durations are seconds here and microseconds in the script.
"""

from __future__ import annotations

import base64
import functools
import re
from urllib.parse import quote, unquote

from limiter_core.requests import Presence
from limiter_core.tracing import SEPARATOR as TRACE

SAFE = ":@+/=,"
ANY_TEXT = "surrogatepass"
"""How text is encoded: a lone surrogate is no text, but it may stand in a str."""

_TRACE_WORD = quote(TRACE)

_last_traced: tuple[str, str] = "", ""
"""A label and its word: the calls of a request have one, and the same object (`with_trace`)."""

_PRINTED = "".join(map(chr, range(ord("!"), ord("~") + 1))).replace("{", "").replace("}", "")
"""What stands in a word for a key as it is: braces would end the hash tag."""


_IS_PLAIN = re.compile(r"[\w.~:@+/=,-]*", re.ASCII).fullmatch
_CODES = {code: quote(chr(code), safe=SAFE) for code in range(128)}


def quoted(text: str) -> str:
    """Return text as `quote` does with `SAFE`, which takes three times as long for ASCII."""
    if _IS_PLAIN(text):
        return text
    if text.isascii():
        return text.translate(_CODES)
    return quote(text, safe=SAFE, errors=ANY_TEXT)


def microseconds(duration: float) -> int:
    """Return a duration as the script counts it."""
    return round(duration * 1_000_000)


def seconds(field: str) -> float | None:
    """Return a duration of the script, None where it says "-"."""
    return None if field == "-" else int(field) / 1_000_000


def id_word(request_id: str) -> str:
    """Return an id, which may be any text, as one word; that of a limiter is one."""
    return quoted(request_id)


@functools.lru_cache(maxsize=4096)
def key_word(key: str) -> str:
    """Return a key as one word without braces; each that a limiter derives is one."""
    return quote(key, safe=_PRINTED, errors=ANY_TEXT)


@functools.lru_cache(maxsize=1024)
def word(text: str) -> str:
    """Return text as one word of printable ASCII; "-" stands for none."""
    return "%2D" if text == "-" else quoted(text) or "-"


def label_word(label: str) -> str:
    """Return a label as one word; of those that carry a trace, the last one is kept."""
    if TRACE not in label:
        return word(label)
    global _last_traced  # noqa: PLW0603  (replaced as a whole, so that threads need no lock)
    known, found = _last_traced
    if label is known:
        return found
    own, _, trace = label.partition(TRACE)
    found = f"{word(own) if own else ''}{_TRACE_WORD}{id_word(trace)}"
    _last_traced = label, found
    return found


def unword(word: str) -> str:
    """Return the text of a word."""
    if "%" not in word:
        return "" if word == "-" else word
    label, carries_trace, trace = word.partition(_TRACE_WORD)
    if carries_trace and "%" not in label and "%" not in trace:  # `unquote` takes 5 µs
        return f"{label}{TRACE}{trace}"
    return unquote(word, errors=ANY_TEXT)


def payload_word(payload: bytes, presence: Presence | None) -> str:
    """Return a payload as one word, with the gate in front whose workers can wake the job."""
    if presence is None:
        return _base64(payload)
    worker = "" if presence.leaving else word(presence.worker)
    return f"{word(presence.name)}|{worker}|{_base64(payload)}"


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode() or "="


def scope_of(key: str) -> str:
    """Return the (encoded) scope of a key, "" without one."""
    scope, slash, _ = key.partition("/")
    return scope if slash else ""
