"""A request of an HTTP client, as strategies see it, and the errors of its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from limiter_core import ArgumentView, LimiterError

__all__ = ("ErrorClasses", "RequestView", "client_error")

ErrorClasses = Mapping[type[LimiterError], type[LimiterError]]
"""For each error of a limiter, the one that also is an error of the client."""

_ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "host": lambda request: request.url.host,
    "method": lambda request: request.method,
    "path": lambda request: request.url.path,
    "scheme": lambda request: request.url.scheme,
    "headers": lambda request: request.headers,
}


class _Arguments(Mapping[str, Any]):
    """The arguments of a request, each taken from it when it is asked for."""

    __slots__ = ("_request",)

    def __init__(self, request: Any) -> None:
        self._request = request

    def __getitem__(self, name: str) -> Any:
        return _ARGUMENTS[name](self._request)

    def __contains__(self, name: object) -> bool:
        return name in _ARGUMENTS

    def __iter__(self) -> Iterator[str]:
        return iter(_ARGUMENTS)

    def __len__(self) -> int:
        return len(_ARGUMENTS)


class RequestView(ArgumentView):
    """What strategies see: `host`, `method`, `path`, `scheme`, `headers` (in any case)."""

    __slots__ = ()

    def __init__(self, request: Any) -> None:
        super().__init__(_Arguments(request))


def client_error(error: LimiterError, classes: ErrorClasses) -> LimiterError:
    """Return the error as one that also is its client's; itself, if there is no such class."""
    kind = classes.get(type(error))
    if kind is None:
        return error
    # Every error of the package is made again from its fields when it is unpickled.
    fields: Any = error.__reduce__()[1]
    return kind(*fields).with_traceback(error.__traceback__)
