"""`LimitMiddleware`: a slot around each tool call."""

from __future__ import annotations

from collections.abc import Sequence

from fastmcp.server.middleware import CallNext, Middleware
from fastmcp.tools.base import ToolResult
from mcp import MCPError
from mcp_types import CallToolRequestParams

from limiter_core import ConcurrencyLimit, Lease, Limiter
from limiter_core.streams import check_async_limits
from limiter_fastmcp._view import ToolCall, ToolCallView
from limiter_http.refusals import REFUSALS, refusal_of

REFUSED = -32000
"""The code of a refusal; the first of those that JSON-RPC leaves to servers."""


class LimitMiddleware(Middleware):
    """Limits how many tool calls run at once.

    A slot is held until the tool has returned or raised, or the client has cancelled the call. A
    call that FastMCP runs as a background task holds it only until the task is queued.

    A refusal is an error of the protocol, `MCPError` in FastMCP's client, with the code -32000;
    its `data` has `reason`, `limit` and `retry_after`, in seconds, as far as they are known.

    Args:
        limiter: what takes the slots.
        limits: a limit, or several; strategies see `tool`, `arguments`, `user`, `session`, and each
            argument of the tool by its name. `LIMIT_BY.fn_name` is the name of the tool.

    Raises:
        ConfigurationError: that is no `Limiter`, or these are no limits.
    """

    def __init__(
        self, limiter: Limiter, limits: ConcurrencyLimit | Sequence[ConcurrencyLimit]
    ) -> None:
        self._limits = check_async_limits(limiter, limits, type(self).__name__)
        self._limiter = limiter

    async def on_call_tool(
        self, context: ToolCall, call_next: CallNext[CallToolRequestParams, ToolResult]
    ) -> ToolResult:
        """Call a tool when there is a slot for it."""
        lease: Lease | None = None
        view = await ToolCallView.of(context)
        try:
            async with self._limiter.hold(self._limits, view) as lease:
                return await call_next(context)
        except REFUSALS as error:
            refusal = refusal_of(error, lease, "tool call")
            if refusal is None:
                raise
            data = refusal.fields()
            if refusal.retry_after is not None:
                data["retry_after"] = round(refusal.retry_after, 3)
            raise MCPError(REFUSED, refusal.detail, data) from error
