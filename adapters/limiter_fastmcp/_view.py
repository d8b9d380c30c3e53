"""What a strategy sees of a tool call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import MiddlewareContext
from mcp.server.auth.provider import AccessToken, principal_components
from mcp_types import CallToolRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from limiter_core import ArgumentView, register_key_type
from limiter_http.arguments import ReadArguments, Readers

_Context = MiddlewareContext[CallToolRequestParams]


def _session(context: _Context) -> str | None:
    server = context.fastmcp_context
    request = None if server is None else server.request_context
    if server is None or request is None or request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None  # there FastMCP makes up an id for each request
    return server.session_id


class _Call(NamedTuple):
    context: _Context
    given: Mapping[str, Any]


class _Arguments(ReadArguments):
    __slots__ = ()

    owner = "a tool call"
    readers: ClassVar[Readers] = {
        "tool": lambda call: call.context.message.name,
        "user": lambda _: get_access_token(),
        "session": lambda call: _session(call.context),
        "arguments": lambda call: call.given,
    }
    why_not: ClassVar[Mapping[str, str]] = {
        "user": "it was not authenticated",
        "session": "since version 2026-07-28 the protocol has no sessions; limit by the user, or "
        "by an argument of the tool",
    }


class ToolCallView(ArgumentView):
    """The arguments of a tool call; its function's name is that of the tool."""

    __slots__ = ()

    adapter: ClassVar[str | None] = "fastmcp"

    @classmethod
    async def of(cls, context: _Context) -> Self:
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
        return cls(_Arguments(_Call(context, given), last=given), call.name)


def _principal_of(token: AccessToken) -> str:
    """Return what identifies a user in a key: client, issuer and subject; never the token."""
    return json.dumps(principal_components(token), separators=(",", ":"))


register_key_type(AccessToken, _principal_of)
