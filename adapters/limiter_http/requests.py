"""A request of an HTTP client, as strategies see it."""

from __future__ import annotations

from typing import Any, ClassVar

from limiter_core import ArgumentView
from limiter_http.arguments import ReadArguments, Readers

__all__ = ("RequestView",)


class _Arguments(ReadArguments):
    __slots__ = ()

    readers: ClassVar[Readers] = {
        "host": lambda request: request.url.host,
        "method": lambda request: request.method,
        "path": lambda request: request.url.path,
        "scheme": lambda request: request.url.scheme,
        "headers": lambda request: request.headers,
    }


class RequestView(ArgumentView):
    """What strategies see: `host`, `method`, `path`, `scheme`, `headers` (in any case)."""

    __slots__ = ()

    def __init__(self, request: Any) -> None:
        super().__init__(_Arguments(request))
