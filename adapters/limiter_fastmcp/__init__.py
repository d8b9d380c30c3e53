"""Concurrency limits for FastMCP servers: a middleware that holds a slot for each tool call.

    mcp.add_middleware(LimitMiddleware(limiter, ConcurrencyLimit(LIMIT_BY.fn_name, 4)))

`docs/how-to/fastmcp.md` says what is held when, and how to limit background tasks.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("fastmcp", "limits for FastMCP need fastmcp"):
    import_module("fastmcp")

from limiter_fastmcp._middleware import LimitMiddleware

__all__ = ("LimitMiddleware",)
