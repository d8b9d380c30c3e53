"""What a strategy sees of a tool call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import MiddlewareContext
from mcp.server.auth.provider import AccessToken, principal_components
from mcp_types import CallToolRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from limiter_core import ArgumentView, KeyDerivationError, register_key_type


class ToolCallView(ArgumentView):
    """The arguments of a tool call; its function's name is that of the tool."""

    __slots__ = ()

    adapter: ClassVar[str | None] = "fastmcp"

    @classmethod
    async def of(cls, context: MiddlewareContext[CallToolRequestParams]) -> Self:
        """Return the view of a call, with the defaults of the tool for what was not sent."""
        call = context.message
        given = call.arguments or {}
        server = context.fastmcp_context
        tool = None if server is None else await server.fastmcp.get_tool(call.name)
        if tool is not None:
            properties: dict[str, dict[str, Any]] = tool.parameters.get("properties", {})
            defaults = {
                name: schema["default"]
                for name, schema in properties.items()
                if "default" in schema
            }
            given = {**defaults, **given}
        return cls(_Arguments(context, given), call.name)


class _Arguments(Mapping[str, Any]):
    """The arguments by name: those of `_READERS`, then those of the tool."""

    __slots__ = ("_context", "_given")

    def __init__(
        self, context: MiddlewareContext[CallToolRequestParams], given: Mapping[str, Any]
    ) -> None:
        self._context = context
        self._given = given

    def __getitem__(self, name: str) -> Any:
        if name == "arguments":
            return self._given
        read = _READERS.get(name)
        if read is None:
            return self._given[name]
        value = read(self._context)
        if value is None:
            raise KeyDerivationError(
                f"a tool call has no {name!r} here: {_WHY_NOT[name]}; "
                f"there are: {', '.join(sorted(self))}"
            )
        return value

    def __contains__(self, name: object) -> bool:
        return any(name == each for each in self)

    def __iter__(self) -> Iterator[str]:
        read = (name for name in _READERS if _READERS[name](self._context) is not None)
        return iter(dict.fromkeys((*read, "arguments", *self._given)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _session(context: MiddlewareContext[CallToolRequestParams]) -> str | None:
    server = context.fastmcp_context
    request = None if server is None else server.request_context
    if server is None or request is None or request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None  # there FastMCP makes up an id for each request
    return server.session_id


_READERS: dict[str, Callable[[MiddlewareContext[CallToolRequestParams]], Any]] = {
    "tool": lambda context: context.message.name,
    "user": lambda _: get_access_token(),
    "session": _session,
}
"""Each returns None if a call has no such argument."""

_WHY_NOT = {
    "user": "it was not authenticated",
    "session": "since version 2026-07-28 the protocol has no sessions; limit by the user, or by an "
    "argument of the tool",
}


def _principal_of(token: AccessToken) -> str:
    """Return what identifies a user in a key: client, issuer and subject; never the token."""
    return json.dumps(principal_components(token), separators=(",", ":"))


register_key_type(AccessToken, _principal_of)
