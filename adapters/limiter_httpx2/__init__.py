"""Concurrency limits for httpx2: transports that hold a slot from the request to the body's end.

    transport = AsyncLimitedTransport(limiter, ConcurrencyLimit("host", 10))
    client = httpx2.AsyncClient(transport=transport)

`docs/how-to/httpx.md` says what is held when. For httpx: `limiter_httpx`, with the same classes.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("httpx2", "limits for httpx2 need httpx2"):
    import_module("httpx2")

from limiter_httpx2._transports import AsyncLimitedTransport, LimitedTransport

__all__ = ("AsyncLimitedTransport", "LimitedTransport")
