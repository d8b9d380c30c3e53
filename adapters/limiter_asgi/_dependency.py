"""`limit`: a slot around an endpoint of FastAPI and its response, as a dependency."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import anyio
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Message, Receive
from starlette.websockets import WebSocket

from limiter_asgi._client import KEPT, WaitingClient
from limiter_asgi._refusals import (
    CLIENT_CLOSED_REQUEST,
    TRY_AGAIN_LATER,
    check_on_refused,
    refused,
)
from limiter_asgi._view import RequestView
from limiter_core import ConcurrencyLimit, ConfigurationError, Lease, Limiter
from limiter_core.streams import ClientGone, check_async_limits, hold_for_client
from limiter_http.refusals import REFUSALS

OLDEST = (0, 118)
"""The first release of FastAPI that leaves a dependency after the response was sent."""

_GOING_AWAY = 1001
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


def limit(
    limiter: Limiter,
    limits: ConcurrencyLimit | Sequence[ConcurrencyLimit],
    *,
    on_refused: int = 503,
) -> Callable[[HTTPConnection], AsyncGenerator[Lease]]:
    """Return a dependency of FastAPI that holds a slot while an endpoint is served::

        @app.get("/reports/{customer_id}", dependencies=[Depends(limit(limiter, per_customer))])

    For `async def` and `def` endpoints, and for websockets. The slot is held until the response was
    sent, and its background tasks are done. As a parameter it is the `Lease`. Strategies see the
    parameters of the path by their names, too, and `LIMIT_BY.fn_name` the endpoint.

    A refusal raises `RequestRefused`, an `HTTPException` with `Retry-After` where that is known.
    `problem_response` sends all of it. A websocket is closed with 1013, before it is accepted.

    A client that is gone while it waits leaves the line, unless its request has a body of more than
    64 KiB, or of unknown length: a smaller one is read before the request waits.

    Args:
        limiter: takes the slots.
        limits: a limit, or several: then all are taken, or none.
        on_refused: the status of a refusal: 503, or 429 where the limits are the client's own.
            (If the store is unavailable, it is 503.)

    Raises:
        ConfigurationError: one of them is not what is said here, or FastAPI is older than 0.118.
    """
    _check_fastapi()
    checked = check_async_limits(limiter, limits, "limit()")
    status = check_on_refused(on_refused)

    async def limited(connection: HTTPConnection) -> AsyncGenerator[Lease]:
        lease: Lease | None = None
        client = WaitingClient(await _receive_of(connection))
        try:
            view = RequestView(connection.scope)
            async with hold_for_client(limiter, checked, view, client) as lease:
                client.end()
                yield lease
        except ClientGone:
            _leave(connection)
        except REFUSALS as error:
            refusal = refused(error, status, lease)
            if refusal is None:
                raise
            if isinstance(connection, WebSocket):
                raise WebSocketException(TRY_AGAIN_LATER, refusal.problem["detail"]) from error
            raise refusal from error
        finally:
            client.end()

    return limited


async def _receive_of(connection: HTTPConnection) -> Receive:
    """Return a `receive` that returns when the client is gone, and takes nothing else away."""
    if isinstance(connection, WebSocket):
        return connection.receive  # it keeps its state
    if not isinstance(connection, Request) or not _has_small_body(connection):
        return _receive_nothing
    try:
        await connection.body()  # the request keeps it
    except ClientDisconnect:
        _leave(connection)
    except RuntimeError:  # another dependency has read it
        return _receive_nothing
    return connection.receive


async def _receive_nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


def _has_small_body(request: Request) -> bool:
    length = request.headers.get("content-length")
    if length is None:
        return request.method in _WITHOUT_BODY and "transfer-encoding" not in request.headers
    return length.isdecimal() and int(length) <= KEPT


def _leave(connection: HTTPConnection) -> NoReturn:
    """End the request of a client that is gone; nobody gets the answer."""
    if isinstance(connection, WebSocket):
        raise WebSocketException(_GOING_AWAY)
    raise HTTPException(CLIENT_CLOSED_REQUEST, "the client is gone")


def _check_fastapi() -> None:
    try:
        found = version("fastapi")
    except PackageNotFoundError:
        raise ConfigurationError(
            "limit() makes a dependency of FastAPI, which is not installed; "
            "LimitMiddleware limits any ASGI app"
        ) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        raise ConfigurationError(
            f"limit() needs FastAPI 0.118 or newer, got {found}: an older one leaves a dependency "
            "before the response is sent, and a stream would hold no slot"
        )
