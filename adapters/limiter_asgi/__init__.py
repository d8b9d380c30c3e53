"""Concurrency limits for ASGI apps: Starlette, FastAPI and all others.

    app.add_middleware(LimitMiddleware, limiter=limiter, limits=ConcurrencyLimit("client", 4))

    @app.get("/reports/{customer_id}", dependencies=[Depends(limit(limiter, per_customer))])

A slot is held until the last byte of the response was sent. `docs/how-to/asgi.md` says what is held
when, and what a strategy sees of a request.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("asgi", "limits for ASGI apps need starlette"):
    import_module("starlette")

from limiter_asgi._dependency import limit
from limiter_asgi._middleware import LimitMiddleware
from limiter_asgi._refusals import RequestRefused, problem_response

__all__ = ("LimitMiddleware", "RequestRefused", "limit", "problem_response")
