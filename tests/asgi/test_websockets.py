"""A websocket holds its slot until it is closed, and is refused before it is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from limiter_asgi import LimitMiddleware
from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, Limiter, SyncLimiter
from limiter_memory import MemoryStore

from ._server import PATIENCE, Server, until_state

ONE = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1)
NONE_WAITS = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, on_conflict="cancel")

Serve = Callable[..., Server]

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while (text := await websocket.receive_text()) != "end":
            await websocket.send_text(text)
        await websocket.close()
    except WebSocketDisconnect:
        pass


def app(limiter: Limiter, limit: ConcurrencyLimit = ONE) -> Any:
    return LimitMiddleware(Starlette(routes=[WebSocketRoute("/echo", echo)]), limiter, limit)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/echo"


@pytest.mark.parametrize("ends", ["by the app", "by the client"])
def test_a_websocket_holds_a_slot_until_it_is_closed(
    limiter: Limiter, serve: Serve, store: MemoryStore, ends: str
) -> None:
    with connect(url(serve(app(limiter)))) as websocket:
        websocket.send("a")
        assert websocket.recv() == "a"
        until_state(store, "web", in_use=1, waiting=0)
        if ends == "by the app":
            websocket.send("end")
            until_state(store, "web", in_use=0, waiting=0)
    until_state(store, "web", in_use=0, waiting=0)


def test_a_websocket_that_waits_is_accepted_with_its_slot(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    client = serve(app(limiter)).connect()
    with SyncLimiter(store).hold(ONE):
        client.send(HANDSHAKE)
        until_state(store, "web", in_use=1, waiting=1)
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    until_state(store, "web", in_use=1, waiting=0)
    client.leave()
    until_state(store, "web", in_use=0, waiting=0)


def test_a_client_that_is_gone_leaves_the_line(
    limiter: Limiter, serve: Serve, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(app(limiter)).connect()
    with SyncLimiter(store).hold(ONE):
        client.send(HANDSHAKE)
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until_state(store, "web", in_use=1, waiting=0)
    until_state(store, "web", in_use=0, waiting=0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_websocket_is_refused_with_a_problem_where_the_server_can(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    server = serve(app(limiter, NONE_WAITS))
    with SyncLimiter(store).hold(ONE), pytest.raises(InvalidStatus) as refused:
        connect(url(server))
    response = refused.value.response
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.body is not None
    assert b'"reason":"full"' in response.body


async def test_a_websocket_is_closed_with_1013_where_the_server_cannot(
    limiter: Limiter, store: MemoryStore
) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with SyncLimiter(store).hold(ONE):
        await app(limiter, NONE_WAITS)({"type": "websocket"}, None, send)
    assert sent == [
        {
            "type": "websocket.close",
            "code": 1013,
            "reason": "All slots of this limit are in use.",
        }
    ]


def test_a_websocket_whose_slot_is_lost_is_closed_with_1013(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    with connect(url(serve(app(limiter)))) as websocket:
        until_state(store, "web", in_use=1, waiting=0)
        websocket.send("a")
        assert websocket.recv() == "a"
        assert asyncio.run(limiter.evict(store.inspect("web").holders[0].id))
        with pytest.raises(ConnectionClosedError) as closed:
            websocket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_an_answer_in_place_of_a_websocket_is_cut_off_if_its_slot_is_lost(
    limiter: Limiter, store: MemoryStore
) -> None:
    async def denies(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await limiter.evict(store.inspect("web").holders[0].id)
        await anyio.sleep(PATIENCE)

    sent: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    with pytest.raises(LeaseLost):
        await LimitMiddleware(denies, limiter, ONE)({"type": "websocket"}, None, send)
    assert sent == ["websocket.http.response.start"]
