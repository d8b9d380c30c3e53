"""A server that stops, and cuts its requests off: those that hold slots, and those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from limiter_asgi import LimitMiddleware, limit
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from tests.redis._servers import Process, server_program

from ._server import Server, until

WEB = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, lease=600)

HANDSHAKE = {
    "/websocket": (
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )
}


@pytest.fixture
def redis_server() -> Iterator[Process]:
    program = server_program()
    with closing(Process(program)) as server:
        yield server


async def endless() -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0.01)

    return StreamingResponse(body())


def app_of(limiter: Limiter, *, closes: bool) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        if closes:
            await limiter.aclose()

    async def answer(_: Any) -> StreamingResponse:
        return await endless()

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    around = [Middleware(LimitMiddleware, limiter=limiter, limits=WEB)]
    app = FastAPI(
        lifespan=lifespan,
        routes=[
            Route("/middleware", answer, middleware=around),
            WebSocketRoute("/websocket", talk, middleware=around),
        ],
    )
    app.get("/depends", dependencies=[Depends(limit(limiter, WEB))], response_model=None)(endless)
    return app


@pytest.mark.parametrize("closes", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("path", ["/middleware", "/depends", "/websocket"])
def test_no_slot_and_no_place_in_line_is_left(
    serve: Callable[..., Server], redis_server: Process, parser: str, path: str, closes: bool
) -> None:
    server = serve(app_of(Limiter(redis_server.url), closes=closes), parser)
    with SyncLimiter(redis_server.url) as look:
        clients = [server.connect() for _ in range(4)]
        clients[0].get(path, *HANDSHAKE.get(path, ()))
        until(lambda: look.inspect("web").in_use == 1, "one is served")
        for client in clients[1:]:
            client.get(path, *HANDSHAKE.get(path, ()))
        until(lambda: look.inspect("web").waiting == 3, "three wait")
        server.end()
        state = look.inspect("web")
        assert (state.in_use, state.waiting) == (0, 0)
