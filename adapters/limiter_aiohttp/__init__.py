"""Concurrency limits for aiohttp's client: a middleware that holds a slot for each request.

    limit = LimitMiddleware(limiter, ConcurrencyLimit("host", 10))
    session = aiohttp.ClientSession(middlewares=[limit])

`docs/how-to/aiohttp.md` says what is held when.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("aiohttp", "limits for aiohttp need aiohttp"):
    import_module("aiohttp")

from limiter_aiohttp._middleware import LimitMiddleware

__all__ = ("LimitMiddleware",)
