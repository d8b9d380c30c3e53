"""What a strategy sees of a request: read from the scope when it asks, and not before."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any, ClassVar, cast

from starlette.authentication import BaseUser
from starlette.datastructures import Headers, QueryParams
from starlette.routing import Mount
from starlette.types import Scope

from limiter_core import ArgumentView, KeyDerivationError, register_key_type
from limiter_core.arguments import function_name_of
from limiter_http.arguments import ReadArguments, Readers, Reasons

NO_ARGUMENTS: Mapping[str, Any] = {}

_ENDPOINTS = (FunctionType, MethodType, functools.partial, type)
"""What routes lead to; a mounted app is an object of its own class."""


def _route(scope: Scope) -> str | None:
    """Return the path of the route, with its parameters by name: `/customers/{customer_id}`."""
    route = scope.get("route")
    if not hasattr(route, "path") or isinstance(route, Mount):
        return None
    mounted_at = scope.get("root_path", "").removeprefix(scope.get("app_root_path", ""))
    # A route of an included router has no prefix in newer releases of FastAPI; this has.
    included = scope.get("fastapi", {}).get("effective_route_context")
    if included is not None and included.original_route is route:
        route = included
    path: str = cast(Any, route).path
    return f"{mounted_at}{path}" if "app_root_path" in scope else path


def _has_endpoint(scope: Scope) -> bool:
    """Whether routing is over; an app that is mounted in another does its own."""
    return isinstance(scope.get("endpoint"), _ENDPOINTS) and not isinstance(
        scope.get("route"), Mount
    )


_AFTER_ROUTING = (
    "it is known only after routing, and this middleware runs before; put the limit into "
    "Depends(limit(...)), or the middleware into the route"
)


class _RequestArguments(ReadArguments):
    __slots__ = ()

    readers: ClassVar[Readers] = {
        # A websocket begins with a GET.
        "method": lambda scope: scope.get("method", "GET"),
        "path": lambda scope: scope["path"],
        "client": lambda scope: (scope.get("client") or (None,))[0],
        "headers": lambda scope: Headers(scope=scope),
        "query_params": lambda scope: QueryParams(scope.get("query_string", b"")),
        "user": lambda scope: scope.get("user"),
        "route": _route,
        "path_params": lambda scope: scope.get("path_params") if _has_endpoint(scope) else None,
    }
    why_not: ClassVar[Reasons] = {
        "client": "the server gives no address of the client, as on a Unix socket",
        "user": "no authentication middleware runs outside of the limit",
        "route": f"{_AFTER_ROUTING} (older releases of Starlette never say it)",
        "path_params": _AFTER_ROUTING,
    }


class RequestView(ArgumentView):
    """The arguments of a request, and the name of its endpoint where that is known.

    Args:
        scope: of ASGI.
        given: further arguments, which go before the others.
    """

    __slots__ = ("_given", "_made", "_scope")

    adapter = "asgi"

    def __init__(self, scope: Scope, given: Mapping[str, Any] = NO_ARGUMENTS) -> None:
        self._scope = scope
        self._given = given
        self._made: Mapping[str, Any] | None = None
        self.function_name = None
        if "endpoint" in scope and _has_endpoint(scope):
            self.function_name = function_name_of(scope["endpoint"])

    # Made when a strategy asks: most limits of requests have one key for all.
    @property
    def _arguments(self) -> Mapping[str, Any]:  # type: ignore[override]  # (read only here)
        if self._made is None:
            parameters = self._scope.get("path_params", NO_ARGUMENTS)
            self._made = _RequestArguments(self._scope, self._given, parameters)
        return self._made


def _identity_of(user: BaseUser) -> str:
    """Return what identifies a user in a key; all that are not authenticated share one."""
    try:
        return str(user.identity) if user.is_authenticated else ""
    except NotImplementedError:
        raise KeyDerivationError(
            f"{type(user).__qualname__} has no `identity`, so it cannot stand in a key: give it "
            'one, or limit by one of its attributes, as in "user.id"'
        ) from None


register_key_type(BaseUser, _identity_of)
