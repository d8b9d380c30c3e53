"""Concurrency limits for FastMCP servers: a middleware that holds a slot for each tool call.

    mcp.add_middleware(LimitMiddleware(limiter, ConcurrencyLimit(LIMIT_BY.fn_name, 4)))

`docs/how-to/fastmcp.md` says what is held when, and how to limit background tasks, which
this does not.
"""

from importlib import import_module

try:
    import_module("fastmcp")
except ImportError as error:
    raise ImportError(
        'limits for FastMCP need fastmcp: pip install "concurrency-limits[fastmcp]"'
    ) from error

from limiter_fastmcp._middleware import LimitMiddleware

__all__ = ("LimitMiddleware",)
