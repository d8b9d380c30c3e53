"""A web server under load: each key behind every way to hold a slot for a request.

    python -m tests.faults.workers.web_server '{"url": ..., "port": ..., "notes": "folder"}'

    /middleware/KEY, /socket/KEY    `LimitMiddleware`, around a route, and around a websocket
    /depends/KEY, /threads/KEY      `Depends(limit(...))`, of an `async def` and of a `def`
    /limited/KEY                    a stream of `limited`
    /plain                          no limit: for clients that have one

A response has `chunks` parts, with `pause` seconds before each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from limiter_asgi import LimitMiddleware, limit
from limiter_core import Lease, Limiter
from tests.faults.workers.body_notes import LIMITS, Notes, limit_of

given: dict[str, Any] = json.loads(sys.argv[1])
notes = Notes(given["notes"])
limiter = Limiter(given["url"])


class Noted:
    """Notes the body of a request: from the app's first step to its last byte, or its end."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = notes.begin(self.key)

        async def noting_send(message: Message) -> None:
            of_response = message["type"] == "http.response.body" and not message.get("more_body")
            if of_response or message["type"] == "websocket.close":
                body.end()
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            body.end()


def settings_of(query: Any) -> tuple[int, float]:
    return int(query.get("chunks", 2)), float(query.get("pause", 0.003))


async def parts(request: Request) -> AsyncIterator[bytes]:
    count, pause = settings_of(request.query_params)
    for number in range(count):
        await asyncio.sleep(pause)
        yield b"last\n" if number == count - 1 else b"part\n"


def parts_in_thread(request: Request) -> Iterator[bytes]:
    count, pause = settings_of(request.query_params)
    for number in range(count):
        time.sleep(pause)
        yield b"last\n" if number == count - 1 else b"part\n"


async def answer(request: Request) -> Response:
    """Read the request, and answer with a stream, or at once."""
    await request.body()
    if "whole" not in request.query_params:
        return StreamingResponse(parts(request))
    return PlainTextResponse(b"".join([part async for part in parts(request)]))


async def talk(websocket: WebSocket) -> None:
    """Send some messages, then close; a client may leave before."""
    count, pause = settings_of(websocket.query_params)
    await websocket.accept()
    try:
        for _ in range(count):
            await asyncio.sleep(pause)
            await websocket.send_text("last")
        await websocket.close()
    except WebSocketDisconnect:
        return


def noted_by_dependency(key: str) -> Callable[..., AsyncGenerator[None]]:
    held = Depends(limit(limiter, limit_of(key)))

    async def noted(lease: Lease = held) -> AsyncGenerator[None]:
        body = notes.begin(key, lease.fencing_token)
        try:
            yield
        finally:
            body.end()

    return noted


def answer_of_thread(request: Request) -> Response:
    if "whole" not in request.query_params:
        return StreamingResponse(parts_in_thread(request))
    return PlainTextResponse(b"".join(parts_in_thread(request)))


def answer_by_limited(key: str) -> Callable[[Request], Any]:
    @limiter.limited(limit_of(key))
    async def held(request: Request) -> AsyncIterator[bytes]:
        body = notes.begin(key)
        try:
            async for part in parts(request):
                yield part
        finally:
            body.end()

    async def answer(request: Request) -> Response:
        await request.body()
        return StreamingResponse(held(request))

    return answer


def routes_of(key: str) -> list[Any]:
    around = [
        Middleware(LimitMiddleware, limiter=limiter, limits=limit_of(key)),
        Middleware(Noted, key=key),
    ]
    return [
        Route(f"/middleware/{key}", answer, methods=["POST"], middleware=around),
        WebSocketRoute(f"/socket/{key}", talk, middleware=around),
        Route(f"/limited/{key}", answer_by_limited(key), methods=["POST"]),
    ]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with limiter:
        yield


def app() -> FastAPI:
    routes = [each for key in LIMITS for each in routes_of(key)]
    plain = Route("/plain", answer, methods=["GET", "POST"])
    found = FastAPI(routes=[*routes, plain], lifespan=lifespan)
    for key in LIMITS:
        depends = [Depends(noted_by_dependency(key))]
        found.post(f"/depends/{key}", dependencies=depends, response_model=None)(answer)
        found.post(f"/threads/{key}", dependencies=depends, response_model=None)(answer_of_thread)
    return found


if __name__ == "__main__":
    uvicorn.run(
        app(),
        port=given["port"],
        ws="websockets-sansio",
        http=given["parser"],
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
