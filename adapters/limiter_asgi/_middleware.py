"""`LimitMiddleware`: a slot around each request, up to the last byte of its response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from limiter_asgi._refusals import (
    TRY_AGAIN_LATER,
    check_on_refused,
    refused,
    send_refusal,
    send_to_nobody,
)
from limiter_asgi._request import LimitedRequest
from limiter_asgi._view import NO_ARGUMENTS, RequestView
from limiter_core import ConcurrencyLimit, ConfigurationError, Limiter
from limiter_core.brief import brief
from limiter_core.streams import ClientGone, runner_for_clients
from limiter_http.refusals import REFUSALS

GivenArguments = Mapping[str, Any]


class LimitMiddleware:
    """Limits how many requests, and how many websockets, of an ASGI app are served at once.

    A slot is held until the last byte of the response was sent, the websocket is closed, or the app
    has ended. What it does behind the last byte (background tasks) holds none. A client that is
    gone while it waits leaves the line.

    Refusals are answered as problem details (RFC 9457), with `Retry-After` where that is known; a
    websocket is refused before it is accepted. If the slot is lost, the app is cancelled; a
    response that has begun is cut off, and `LeaseLost` goes to the server, which logs it.

    Args:
        app: the app that is limited.
        limiter: takes the slots.
        limits: a limit, or several: then all are taken, or none.
        arguments: takes the `HTTPConnection`, and returns arguments by name for the strategies,
            which go before those of the request; may be async.
        on_refused: the status of a refusal: 503, or 429 where the limits are the client's own.
            (If the store is unavailable, it is 503.)

    Raises:
        ConfigurationError: one of them is not what is said here.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: Limiter,
        limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
        *,
        arguments: Callable[[HTTPConnection], GivenArguments | Awaitable[GivenArguments]]
        | None = None,
        on_refused: int = 503,
    ) -> None:
        if arguments is not None and not callable(arguments):
            raise ConfigurationError(
                f"arguments is a function of the HTTPConnection, got {brief(arguments)}"
            )
        self.app = app
        self._run = runner_for_clients(limiter, limits, "LimitMiddleware")
        self._arguments = arguments
        self._on_refused = check_on_refused(on_refused)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, if there is a slot for it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = NO_ARGUMENTS if self._arguments is None else await self._given(scope)
        view = RequestView(scope, given)
        request = LimitedRequest(self.app, scope, receive, send)
        try:
            await self._run(view, request.serve, client=request)
        except ClientGone:
            await send_to_nobody(scope, receive, send)
        except REFUSALS as error:
            refusal = refused(error, self._on_refused, request.lease)
            if refusal is None:
                raise
            if not request.begun_by:
                await send_refusal(refusal, scope, receive, send)
            elif request.begun_by == "websocket.accept":
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            else:
                raise
        finally:
            if request.has_waited:
                request.end()

    async def _given(self, scope: Scope) -> GivenArguments:
        assert self._arguments is not None
        found: Any = self._arguments(HTTPConnection(scope))
        given: Any = await found if isawaitable(found) else found
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"arguments() returns arguments by name, got a {type(given).__qualname__}"
            )
        return cast(GivenArguments, given)
