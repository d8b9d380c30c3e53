"""The middleware. A task of its own holds the slot, since a response outlives the request's task.

It ends when the connection of the response does: aiohttp releases that when the body was received,
when the response is released or closed, and when it is collected. (One that is dropped half read is
not collected before its connection has ended: aiohttp refers to it.)
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Sequence

from aiohttp import (
    ClientHandlerType,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ConnectionTimeoutError,
)

from limiter_core import ConcurrencyLimit, LeaseLost, Limiter, LimitReached
from limiter_core.streams import check_async_limits
from limiter_http.errors import ErrorClasses, client_error
from limiter_http.requests import ARGUMENTS, RequestView

_ERRORS: ErrorClasses = {LimitReached: ConnectionTimeoutError, LeaseLost: ClientPayloadError}


class _View(RequestView):
    adapter = "aiohttp"


class LimitMiddleware:
    """A middleware for a `ClientSession`, or a request, that holds a slot for each request.

    The slot is taken before a connection is, and released when the body was received to its end,
    or the response was released or closed.

    Args:
        limiter: what takes the slots.
        limits: a limit, or several; strategies see `host`, `method`, `path`, `scheme`, `headers`.

    Raises:
        ConfigurationError: that is no `Limiter`, or these are no limits, or they need something
            else of a request than strategies see.
        LimitReached: (from a request) refused; also an aiohttp `ConnectionTimeoutError`.
        LeaseLost: (also while a body is read) the slot is gone; also a `ClientPayloadError`.
        Superseded, KeyDerivationError, StoreUnavailable: (from a request) as `Limiter.hold`.
    """

    def __init__(
        self, limiter: Limiter, limits: ConcurrencyLimit | Sequence[ConcurrencyLimit]
    ) -> None:
        self._limits = check_async_limits(limiter, limits, type(self).__name__, ARGUMENTS)
        self._limiter = limiter
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request when there is a slot for it."""
        answered: asyncio.Future[ClientResponse] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._hold(request, handler, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await answered
        except asyncio.CancelledError:
            # The answer may have come at the same moment: then nobody else closes it.
            if answered.done() and not answered.cancelled() and answered.exception() is None:
                answered.result().close()
            else:
                task.cancel()
                await asyncio.wait([task])
            raise

    async def _hold(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        answered: asyncio.Future[ClientResponse],
    ) -> None:
        """Hold a slot from the request to the end of its response."""
        caller: asyncio.Future[ClientResponse] | None = answered
        kept: weakref.ref[ClientResponse] | None = None
        try:
            async with self._limiter.hold(self._limits, _View(request)):
                response = await handler(request)
                if answered.done():  # its caller was cancelled
                    response.close()
                    return
                ended, kept = _end_of(response)
                answered.set_result(response)
                # The caller may drop it, so nothing here refers to it.
                caller = None
                del answered, response, request, handler
                await ended
        except asyncio.CancelledError:
            if caller is not None:
                caller.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            mapped = client_error(error, _ERRORS)
            if caller is None:
                if kept is not None and (lost := kept()) is not None:
                    lost.content.set_exception(mapped)
                    lost.close()
            elif not caller.done():
                caller.set_exception(mapped)


def _end_of(response: ClientResponse) -> tuple[asyncio.Future[None], weakref.ref[ClientResponse]]:
    """Return a future that is done when a response has ended, and a reference to the response."""
    loop, connection = asyncio.get_running_loop(), response.connection
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def end_from_anywhere(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so is its task
            if asyncio._get_running_loop() is loop:  # noqa: SLF001  (the public one may raise)
                end()  # at once: a request that comes next finds the slot free
            else:  # called by the collector, or in the thread where the loop ran before
                loop.call_soon_threadsafe(end)

    if connection is None:  # its whole body has come
        end()
    else:
        connection.add_callback(end_from_anywhere)
    return ended, weakref.ref(response, end_from_anywhere)
