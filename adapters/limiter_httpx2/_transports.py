"""The transports, as classes of httpx2."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2

from limiter_core import ConcurrencyLimit, LeaseLost, Limiter, LimitReached, SyncLimiter
from limiter_http.async_transports import AsyncBaseBody, AsyncBaseTransport
from limiter_http.errors import ErrorClasses
from limiter_http.requests import RequestView
from limiter_http.transports import BaseBody, BaseTransport

_ERRORS: ErrorClasses = {LimitReached: httpx2.PoolTimeout, LeaseLost: httpx2.ReadError}


class _View(RequestView):
    adapter = "httpx2"


class _AsyncBody(AsyncBaseBody, httpx2.AsyncByteStream):
    errors = _ERRORS
    closed_error = httpx2.StreamClosed


class _Body(BaseBody, httpx2.SyncByteStream):
    errors = _ERRORS
    closed_error = httpx2.StreamClosed


class AsyncLimitedTransport(AsyncBaseTransport, httpx2.AsyncBaseTransport):
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
        LimitReached: (from a request) refused; also an httpx2 `PoolTimeout`.
        LeaseLost: (while a response is read) the slot is gone; also an httpx2 `ReadError`.
        Superseded, KeyDerivationError, StoreUnavailable: (from a request) as `Limiter.hold`.
    """

    body = _AsyncBody
    view = _View

    def __init__(
        self,
        limiter: Limiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            limiter, limits, httpx2.AsyncHTTPTransport() if transport is None else transport
        )


class LimitedTransport(BaseTransport, httpx2.BaseTransport):
    """A transport for a `Client` that holds a slot for each request.

    Args, Raises: as `AsyncLimitedTransport`, with a `SyncLimiter` and an `HTTPTransport`.
    """

    body = _Body
    view = _View

    def __init__(
        self,
        limiter: SyncLimiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(
            limiter, limits, httpx2.HTTPTransport() if transport is None else transport
        )
