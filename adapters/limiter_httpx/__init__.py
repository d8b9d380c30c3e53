"""Concurrency limits for httpx: transports that hold a slot from the request to the body's end.

    transport = AsyncLimitedTransport(limiter, ConcurrencyLimit("host", 10))
    client = httpx.AsyncClient(transport=transport)

`docs/how-to/httpx.md` says what is held when. For httpx2: `limiter_httpx2`, with the same classes.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("httpx", "limits for httpx need httpx"):
    import_module("httpx")

from limiter_httpx._transports import AsyncLimitedTransport, LimitedTransport

__all__ = ("AsyncLimitedTransport", "LimitedTransport")
