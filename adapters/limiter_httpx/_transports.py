"""The transports, as classes of httpx."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from limiter_core import ConcurrencyLimit, LeaseLost, Limiter, LimitReached, SyncLimiter
from limiter_http.async_transports import AsyncBaseBody, AsyncBaseTransport
from limiter_http.errors import ErrorClasses
from limiter_http.requests import RequestView
from limiter_http.transports import BaseBody, BaseTransport

_ERRORS: ErrorClasses = {LimitReached: httpx.PoolTimeout, LeaseLost: httpx.ReadError}


class _View(RequestView):
    adapter = "httpx"


class _AsyncBody(AsyncBaseBody, httpx.AsyncByteStream):
    errors = _ERRORS
    closed_error = httpx.StreamClosed


class _Body(BaseBody, httpx.SyncByteStream):
    errors = _ERRORS
    closed_error = httpx.StreamClosed


class AsyncLimitedTransport(AsyncBaseTransport, httpx.AsyncBaseTransport):
    """A transport for an `AsyncClient` that holds a slot for each request.

    The slot is taken before the transport inside is asked, and released when the response was read
    to its end or closed. The request's `pool` timeout bounds the wait.

    Args:
        limiter: what takes the slots.
        limits: a limit, or several; strategies see `host`, `method`, `path`, `scheme`, `headers`.
        transport: what sends the requests; default an `AsyncHTTPTransport`.

    Raises:
        ConfigurationError: that is no `Limiter`, or these are no limits, or they need something
            else of a request than strategies see.
        LimitReached: (from a request) refused; also an httpx `PoolTimeout`.
        LeaseLost: (while a response is read) the slot is gone; also an httpx `ReadError`.
        Superseded, KeyDerivationError, StoreUnavailable: (from a request) as `Limiter.hold`.
    """

    body = _AsyncBody
    view = _View

    def __init__(
        self,
        limiter: Limiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            limiter, limits, httpx.AsyncHTTPTransport() if transport is None else transport
        )


class LimitedTransport(BaseTransport, httpx.BaseTransport):
    """A transport for a `Client` that holds a slot for each request.

    Args, Raises: as `AsyncLimitedTransport`, with a `SyncLimiter` and an `HTTPTransport`.
    """

    body = _Body
    view = _View

    def __init__(
        self,
        limiter: SyncLimiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(limiter, limits, httpx.HTTPTransport() if transport is None else transport)
