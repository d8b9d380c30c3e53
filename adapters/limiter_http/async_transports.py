"""Transports for httpx and httpx2 in an event loop. As `transports`, with `await`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import AsyncGeneratorType
from typing import Any, ClassVar, Self

from limiter_core import ConcurrencyLimit, Limiter, LimiterError
from limiter_core.streams import check_async_limits, limited_stream
from limiter_http.errors import ErrorClasses, client_error
from limiter_http.requests import ARGUMENTS, RequestView, has_body, pool_timeout

__all__ = ("AsyncBaseBody", "AsyncBaseTransport")


class _AsyncExchange(AsyncGenerator[bytes, Any]):
    """A request and its response, as a stream. No generator: the loop closes only that around."""

    response: Any = None
    """The response, for the caller that takes it: kept here, it would be in a cycle."""
    _stream: Any = None
    _chunks: AsyncIterator[bytes] | None = None

    def __init__(self, transport: Any, request: Any) -> None:
        self._transport = transport
        self._request = request

    async def asend(self, value: Any, /) -> bytes:  # noqa: ARG002  (of the protocol)
        if self._stream is None:
            response = self.response = await self._transport.handle_async_request(self._request)
            self._stream = response.stream
            return b""
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        return await anext(self._chunks)

    async def athrow(self, error: Any, /, *_: Any) -> bytes:
        raise error

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()


class AsyncBaseBody:
    """The body of a response, whose end releases the slot; the classes of a client say the rest."""

    errors: ClassVar[ErrorClasses]
    closed_error: ClassVar[type[Exception]]

    def __init__(self, exchange: _AsyncExchange, held: AsyncGeneratorType[bytes, Any]) -> None:
        self._exchange = exchange
        self._held = held
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise self.closed_error
        try:
            chunk = await anext(self._held)
        except LimiterError as error:
            raise client_error(error, self.errors) from error.__cause__
        if self._closed:  # by another task, which could not end the generator while it ran
            await self._held.aclose()
        return chunk

    async def aclose(self) -> None:
        """Close the response, and release the slot."""
        self._closed = True
        if self._held.ag_running:
            # Another task reads. It ends the generator, whether it finds the connection closed or
            # has got a chunk at the same moment.
            await self._exchange.aclose()
        else:
            await self._held.aclose()


class AsyncBaseTransport:
    """A transport that holds a slot for each request; the classes of a client say the rest."""

    body: ClassVar[type[AsyncBaseBody]]
    view: ClassVar[type[RequestView]]

    def __init__(
        self,
        limiter: Limiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        transport: Any,
    ) -> None:
        self._limiter = limiter
        self._limits = check_async_limits(limiter, limits, type(self).__name__, ARGUMENTS)
        self._transport = transport

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request when there is a slot for it."""
        exchange = _AsyncExchange(self._transport, request)
        held = limited_stream(
            self._limiter,
            self._limits,
            self.view(request),
            exchange,
            timeout=pool_timeout(request),
        )
        body = self.body(exchange, held)
        await anext(body)
        response, exchange.response = exchange.response, None
        if response.is_closed:  # it was made with its content
            await body.aclose()
            return response
        if not has_body(request, response):
            async for _ in body:
                pass
        response.stream = body
        return response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.__aexit__(*error)
