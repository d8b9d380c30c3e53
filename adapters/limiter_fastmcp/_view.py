"""What a strategy sees of a tool call."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import MiddlewareContext
from fastmcp.utilities.versions import VersionSpec
from mcp.server.auth.provider import AccessToken, principal_components
from mcp_types import CallToolRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from limiter_core import ArgumentView, register_key_type
from limiter_http.arguments import ReadArguments, Readers, Reasons

ToolCall = MiddlewareContext[CallToolRequestParams]


def _session(context: ToolCall) -> str | None:
    server = context.fastmcp_context
    request = None if server is None else server.request_context
    if server is None or request is None or request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None  # there FastMCP makes up an id for each request
    return server.session_id


def _version(call: CallToolRequestParams) -> VersionSpec | None:
    """Return which version of a tool is called; None for the latest."""
    meta: Any = call.meta or {}
    named = meta.get("fastmcp", {}).get("version")
    if named is None:
        return None
    return VersionSpec(eq=named) if isinstance(named, str) else VersionSpec(**named)


class _Arguments(ReadArguments):
    __slots__ = ()

    owner = "a tool call"
    readers: ClassVar[Readers] = {
        "tool": lambda context: context.message.name,
        "user": lambda _: get_access_token(),
        "session": _session,
    }
    why_not: ClassVar[Reasons] = {
        "user": "it was not authenticated",
        "session": "since 2026-07-28 the protocol has no sessions; limit by the user or arguments",
    }


class ToolCallView(ArgumentView):
    """The arguments of a tool call; its function's name is that of the tool."""

    __slots__ = ()

    adapter = "fastmcp"

    @classmethod
    async def of(cls, context: ToolCall) -> Self:
        """Return the view of a call, with the tool's defaults for what was not sent."""
        call = context.message
        server = context.fastmcp_context
        tool = None if server is None else await server.fastmcp.get_tool(call.name, _version(call))
        parameters = {} if tool is None else tool.parameters
        schemas: dict[str, dict[str, Any] | bool] = parameters.get("properties", {})
        defaults = {
            name: schema["default"]
            for name, schema in schemas.items()
            if isinstance(schema, dict) and "default" in schema
        }
        given = {**defaults, **(call.arguments or {})}
        return cls(_Arguments(context, {"arguments": given}, given), call.name)


def _principal_of(token: AccessToken) -> str:
    """Return what identifies a user in a key: client, issuer and subject; never the token."""
    return json.dumps(principal_components(token), separators=(",", ":"))


register_key_type(AccessToken, _principal_of)
