"""Transports for httpx and httpx2, which differ in their names only. For threads.

A request and its response are a stream: its first item is empty and stands for the response, the
others are the body. `limited_sync_stream` holds a slot while that stream is open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar, Self

from limiter_core import ConcurrencyLimit, LimiterError, SyncLimiter
from limiter_core.streams import check_sync_limits, limited_sync_stream
from limiter_http.errors import ErrorClasses, client_error
from limiter_http.requests import ARGUMENTS, RequestView, has_body, pool_timeout

__all__ = ("BaseBody", "BaseTransport")


class _Exchange(Generator[bytes, Any, None]):
    """A request and its response, as a stream. No generator: the collector closes nothing here."""

    response: Any = None
    """The response, for the caller that takes it: kept here, it would be in a cycle."""
    _stream: Any = None
    _chunks: Iterator[bytes] | None = None

    def __init__(self, transport: Any, request: Any) -> None:
        self._transport = transport
        self._request = request

    def send(self, value: Any, /) -> bytes:  # noqa: ARG002  (of the protocol)
        if self._stream is None:
            response = self.response = self._transport.handle_request(self._request)
            self._stream = response.stream
            return b""
        try:
            if self._chunks is None:
                self._chunks = iter(self._stream)
            return next(self._chunks)
        except BaseException:  # also at its end: the connection is free before the slot
            self.close_body()
            raise

    def throw(self, error: Any, /, *_: Any) -> bytes:
        self.close_body()
        raise error

    def close(self) -> None:
        """Do nothing: the collector may call it, and a pool of connections has a lock."""

    def close_body(self) -> None:
        if self._stream is not None:
            self._stream.close()


class BaseBody:
    """The body of a response, whose end releases the slot; the classes of a client say the rest."""

    errors: ClassVar[ErrorClasses]
    closed_error: ClassVar[type[Exception]]

    def __init__(self, exchange: _Exchange, held: Generator[bytes, Any, None]) -> None:
        self._exchange = exchange
        self._held = held
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise self.closed_error
        try:
            chunk = next(self._held)
        except LimiterError as error:
            raise client_error(error, self.errors) from error.__cause__
        if self._closed:  # by another thread, which could not end the generator while it ran
            self._end()
        return chunk

    def close(self) -> None:
        """Close the response, and release the slot."""
        self._closed = True
        try:
            self._exchange.close_body()
        finally:
            self._end()

    def _end(self) -> None:
        # Another thread that reads ends the generator, whether it finds the connection closed or
        # has got a chunk at the same moment.
        with contextlib.suppress(ValueError):
            self._held.close()


class BaseTransport:
    """A transport that holds a slot for each request; the classes of a client say the rest."""

    body: ClassVar[type[BaseBody]]
    view: ClassVar[type[RequestView]]

    def __init__(
        self,
        limiter: SyncLimiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: Any,
    ) -> None:
        self._limiter = limiter
        self._limits = check_sync_limits(limiter, limits, type(self).__name__, ARGUMENTS)
        self._transport = transport

    def handle_request(self, request: Any) -> Any:
        """Send a request when there is a slot for it."""
        exchange = _Exchange(self._transport, request)
        held = limited_sync_stream(
            self._limiter,
            self._limits,
            self.view(request),
            exchange,
            timeout=pool_timeout(request),
        )
        body = self.body(exchange, held)
        next(body)
        response, exchange.response = exchange.response, None
        if response.is_closed:  # it was made with its content
            body.close()
            return response
        if not has_body(request, response):
            for _ in body:
                pass
        response.stream = body
        return response

    def close(self) -> None:
        """Close the transport inside."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._transport.__exit__(*error)
