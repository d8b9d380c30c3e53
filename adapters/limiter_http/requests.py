"""A request of an HTTP client: what strategies see, how long it waits, if its answer has a body."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from limiter_core import ArgumentView
from limiter_http.arguments import ReadArguments, Readers

__all__ = ("ARGUMENTS", "RequestView", "has_body", "pool_timeout")


class _Parts(NamedTuple):
    """The parts that strategies see; without the rest, which may refer to the response."""

    method: str
    url: Any
    headers: Any


class _Arguments(ReadArguments):
    __slots__ = ()

    readers: ClassVar[Readers] = {
        "host": lambda parts: parts.url.host,
        "method": lambda parts: parts.method,
        "path": lambda parts: parts.url.path,
        "scheme": lambda parts: parts.url.scheme,
        "headers": lambda parts: parts.headers,
    }


ARGUMENTS = tuple(_Arguments.readers)
"""The names of those that each request has."""


class RequestView(ArgumentView):
    """What strategies see: `host`, `method`, `path`, `scheme`, `headers` (in any case)."""

    __slots__ = ()

    def __init__(self, request: Any) -> None:
        super().__init__(_Arguments(_Parts(request.method, request.url, request.headers)))


def pool_timeout(request: Any) -> float | None:
    """Return how long a request may wait for a connection of the pool; None for any time."""
    seconds = request.extensions.get("timeout", {}).get("pool")
    return None if seconds is None or seconds == math.inf else seconds


def has_body(request: Any, response: Any) -> bool:
    """Whether a response may have a body, or is the beginning of another protocol."""
    if request.method == "CONNECT" or response.status_code < 200:
        return True
    empty = request.method == "HEAD" or response.status_code in {204, 304}
    return not empty and response.headers.get("content-length") != "0"
