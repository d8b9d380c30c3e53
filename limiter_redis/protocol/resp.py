"""The parser of RESP, the protocol of Redis: bytes in, replies out, as they become complete.

Pure, and the same for threads and event loops: the reader of the bytes decides how long to wait for
more. It knows RESP2 and RESP3, and refuses what is neither, or too large to be meant.
"""

from __future__ import annotations

import re
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

LONGEST_LINE = 64 * 1024
"""Bytes of a line that are waited for: headers, numbers and errors are far shorter."""

LONGEST_REPLY = 64 * 1024 * 1024
"""Bytes of a reply, at the most: what is longer is no reply of ours."""

DEEPEST = 8
"""Levels of lists within lists, at the most."""

_ERRORS: dict[str, type[Any]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}
_BULK, _NUMBER, _ERROR, _SIMPLE = b"$:-+"
_LISTS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}
"""What begins a list, and how many elements it has for each that is announced."""
_PUSH = ord(">")
_SHORT_HEADER = 12
"""Bytes of the header of a text, at the most, where it is looked for first."""
_BULKS = b"$=!"
_PLAIN = re.compile(rb"-?\d{1,19}\Z")


class ReplyParser:
    """Takes replies apart.

    A text is bytes, a list a list, an error a `RedisError`; a map is a list of names and values in
    turn.

    Args:
        pushes: whether messages that were not asked for (RESP3) are among the replies, as lists;
            else they are left out.
    """

    def __init__(self, *, pushes: bool = False) -> None:
        self._left_out = None if pushes else _PUSH
        self._rest = bytearray()
        self._needed = 0
        """Bytes that the rest must have before looking at it makes sense."""
        self._lists: list[tuple[list[Any], int, bool]] = []
        """The lists that are not complete, outermost first: elements, their number, a push?"""
        self._size = 0
        """Bytes that the lists took so far."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of a reply is here, that is not complete."""
        return bool(self._rest or self._lists)

    def feed(self, data: bytes) -> tuple[list[Any], InvalidResponse | None]:
        """Take bytes; return the replies that are complete, and why no more can be read.

        After an error nothing more is to be fed: where the next reply begins is not known.
        """
        if not (self._rest or self._lists) and (text := _only_text(data)) is not None:
            return [text], None
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return [], None
            data = bytes(self._rest)
            self._rest.clear()
        replies: list[Any] = []
        start, size = 0, len(data)
        try:
            while start < size:
                end = data.find(b"\r\n", start)
                if end < 0:
                    if size - start > LONGEST_LINE:
                        raise InvalidResponse("a line of the reply does not end")
                    self._needed = size - start + 1
                    break
                kind = data[start]
                if kind == _BULK or kind in _BULKS:
                    begin = end + 2
                    length = _length(data[start + 1 : end])
                    if length < 0:
                        value = None
                    else:
                        end = begin + length
                        if size < end + 2:
                            self._needed = end + 2 - start
                            break
                        if data[end : end + 2] != b"\r\n":
                            raise InvalidResponse("a text of the reply is not as long as it says")
                        value = _text(kind, data[begin:end])
                elif kind in _LISTS:
                    value = self._begin(kind, _length(data[start + 1 : end]))
                    if value is _MORE:
                        start = end + 2
                        continue
                else:
                    value = _scalar(kind, data[start + 1 : end])
                if self._lists:
                    self._size += end + 2 - start
                    value = self._within(value)
                if value is not _MORE:
                    replies.append(value)
                start = end + 2
        except InvalidResponse as error:
            return replies, error
        if start < size:
            self._rest += data[start:]
        return replies, None

    def _begin(self, kind: int, count: int) -> Any:
        """Begin a list; returns it if it has no elements."""
        if count < 0:
            return None
        if len(self._lists) == DEEPEST:
            raise InvalidResponse("the lists of the reply are too deep")
        if not self._lists:
            self._size = 0
        is_push = kind == self._left_out
        if count == 0:
            return _MORE if is_push else []
        self._lists.append(([], count * _LISTS[kind], is_push))
        return _MORE

    def _within(self, value: Any) -> Any:
        """Put an element where it belongs; returns what is complete with it."""
        if self._size > LONGEST_REPLY:
            raise InvalidResponse("the reply does not end")
        while self._lists:
            elements, count, is_push = self._lists[-1]
            elements.append(value)
            if len(elements) < count:
                return _MORE
            self._lists.pop()
            if is_push:
                return _MORE
            value = elements
        return value


_MORE: Any = object()


def _only_text(data: bytes) -> bytes | None:
    """Return the text that is all of some bytes, as nearly all replies are; None if none is."""
    end = data.find(b"\r\n", 0, _SHORT_HEADER)
    length = data[1:end]
    if (
        end > 0
        and data[0] == _BULK
        and length.isdigit()
        and len(data) == end + 4 + int(length)
        and data.endswith(b"\r\n")
    ):
        return data[end + 2 : -2]
    return None


def _length(text: bytes) -> int:
    length = _number(text)
    if length > LONGEST_REPLY:
        raise InvalidResponse(f"the reply is to have {length} bytes or elements")
    return length


def _number(text: bytes) -> int:
    if _PLAIN.match(text) is None:
        raise InvalidResponse(f"{text[:40]!r} in the reply is no number")
    return int(text)


def _text(kind: int, text: bytes) -> Any:
    if kind == _BULK:
        return text
    if kind == ord("!"):
        return error_of(text.decode(errors="replace"))
    return text[4:]  # with its format in front


def _scalar(kind: int, text: bytes) -> Any:
    match kind:
        case 0x2D:  # -
            return error_of(text.decode(errors="replace"))
        case 0x3A:  # :
            return _number(text)
        case 0x2B | 0x2C | 0x28:  # + , (
            return text
        case 0x23:  # #
            return text == b"t"
        case 0x5F:  # _
            return None
        case _:
            raise InvalidResponse(f"no reply begins with {bytes([kind])!r}")


def error_of(said: str) -> Any:
    """Return what a server said as an error of its class."""
    kind, _, rest = said.partition(" ")
    known = _ERRORS.get(kind)
    if known is not None:
        try:
            error: RedisError = known(rest)
        except (ValueError, IndexError):  # a redirection to nowhere
            return ResponseError(said)
        return error
    return ResponseError(said.removeprefix("ERR "))
