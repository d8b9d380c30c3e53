"""Errors of a limiter that also are errors of a client or a framework: its users handle them so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from limiter_core import LimiterError

__all__ = ("ErrorClasses", "client_error")

ErrorClasses = Mapping[type[LimiterError], type[Exception]]
"""For an error of a limiter, and those derived from it, the error of the client that it also is."""


def client_error(error: Exception, classes: ErrorClasses) -> Exception:
    """Return the error as one that also is its client's; itself, if there is no such class."""
    for kind, client in classes.items():
        if isinstance(error, kind) and not isinstance(error, client):
            # Every error of the package is made again from its fields when it is unpickled.
            fields: Any = error.__reduce__()[1]
            return _both(type(error), client)(*fields).with_traceback(error.__traceback__)
    return error


_classes: dict[tuple[type[LimiterError], type[Exception]], type[LimiterError]] = {}


def _both(kind: type[LimiterError], client: type[Exception]) -> type[LimiterError]:
    """Return the one class of the errors that are both."""
    found = _classes.get((kind, client))
    if found is not None:
        return found

    def reduce(self: Any) -> Any:
        return _unpickled, (kind, client, kind.__reduce__(self)[1]), vars(self)

    members = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    made = cast("type[LimiterError]", type(kind.__name__, (kind, client), members))
    return _classes.setdefault((kind, client), made)


def _unpickled(
    kind: type[LimiterError], client: type[Exception], fields: tuple[Any, ...]
) -> LimiterError:
    return _both(kind, client)(*fields)
