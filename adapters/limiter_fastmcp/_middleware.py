"""`LimitMiddleware`: a slot around each tool call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import ToolResult
from mcp import MCPError
from mcp_types import CallToolRequestParams

from limiter_core import (
    ConcurrencyLimit,
    Lease,
    LeaseLost,
    Limiter,
    LimitReached,
    StoreError,
    Superseded,
)
from limiter_core.streams import check_async_limits
from limiter_fastmcp._view import ToolCallView

REFUSED = -32000
"""The code of a refusal; the first of those that JSON-RPC leaves to servers."""

_MESSAGES = {
    "full": "All slots of this limit are in use.",
    "queue_full": "All slots of this limit are in use, and so are all places in its queue.",
    "timeout": "No slot of this limit was free in time.",
    "superseded": "A newer call took the place of this one.",
    "evicted": "An operator ended the waiting of this call.",
    "lost": "The slot of this call was taken from it.",
    "unavailable": "Calls cannot be admitted at the moment.",
}

_logger = logging.getLogger("limiter")


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
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Call a tool when there is a slot for it."""
        lease: Lease | None = None
        view = await ToolCallView.of(context)
        try:
            async with self._limiter.hold(self._limits, view) as lease:
                return await call_next(context)
        except (LimitReached, Superseded, LeaseLost, StoreError) as error:
            if lease is None or (isinstance(error, LeaseLost) and error.lease_id == lease.id):
                raise _refusal(error) from error
            raise  # the tool's own


def _refusal(error: LimitReached | Superseded | LeaseLost | StoreError) -> MCPError:
    """Return the answer to a call; a store that is unavailable is logged."""
    if isinstance(error, StoreError):
        _logger.warning("a tool call was refused, since the store is unavailable: %s", error)
        data: dict[str, Any] = {"reason": "unavailable"}
    elif isinstance(error, LeaseLost):
        data = {"reason": "lost"}
    else:
        data = {"reason": error.reason}
        if error.name:
            data["limit"] = error.name
        if isinstance(error, LimitReached) and error.retry_after is not None:
            data["retry_after"] = round(error.retry_after, 3)
    return MCPError(REFUSED, _MESSAGES[data["reason"]], data)
