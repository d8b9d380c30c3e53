"""`limit` in FastAPI: what it holds, what it refuses, and the releases that it works with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import limiter_asgi._dependency
from limiter_asgi import RequestRefused, limit, problem_response
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Lease,
    Limiter,
    SyncLimiter,
)
from limiter_memory import MemoryStore

from ._server import PATIENCE, Server, request, until, until_state

Serve = Callable[..., Server]

ONE = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1)
NONE_WAITS = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, on_conflict="cancel")
NEWEST = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, on_conflict="cancel_running")


@pytest.fixture
def go_on() -> threading.Event:
    return threading.Event()


@pytest.fixture
def app(limiter: Limiter, go_on: threading.Event) -> FastAPI:
    app = FastAPI()
    one, none_waits = Depends(limit(limiter, ONE)), Depends(limit(limiter, NONE_WAITS))

    async def wait() -> None:
        while not go_on.is_set():  # noqa: ASYNC110  (it is set by another thread)
            await asyncio.sleep(0.002)

    @app.get("/slow", dependencies=[one])
    async def slow() -> str:
        await wait()
        return "done"

    @app.get("/blocks", dependencies=[one])
    def blocks() -> str:
        assert go_on.wait(PATIENCE)
        return "done"

    @app.get("/stream", dependencies=[one])
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            await wait()
            yield "last"

        return StreamingResponse(chunks())

    @app.get("/background", dependencies=[one])
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(wait)
        return "sent"

    @app.post("/echo", dependencies=[one])
    async def echo(request: Request) -> str:
        body = await request.body()
        return f"{len(body)} {body[-4:].decode()}!"

    @app.post("/json", dependencies=[one])
    async def json(text: Annotated[str, Body()]) -> str:
        return f"{len(text)}!"

    @app.get("/refused", dependencies=[none_waits])
    async def refused() -> str:
        return "done"

    @app.get("/newest", dependencies=[Depends(limit(limiter, NEWEST))])
    async def newest() -> str:
        await wait()
        return "done"

    @app.get("/lease")
    async def lease(lease: Lease = one) -> list[str]:
        return list(lease.keys)

    @app.websocket("/echo", dependencies=[none_waits])
    async def echo_back(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    @app.websocket("/waits", dependencies=[one])
    async def waits(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    return app


@pytest.mark.parametrize("path", ["/slow", "/blocks", "/stream"])
def test_a_slot_is_held_until_the_response_was_sent(
    app: FastAPI, serve: Serve, store: MemoryStore, go_on: threading.Event, path: str
) -> None:
    server = serve(app)
    client, second = server.connect(), server.connect()
    client.get(path)
    if path == "/stream":
        client.read_until(b"first")
    until_state(store, "web", in_use=1, waiting=0)
    second.get("/lease")
    until_state(store, "web", in_use=1, waiting=1)
    go_on.set()
    client.read_until(b"last" if path == "/stream" else b"done")
    assert b'["web"]' in second.read_until(b"]")
    until_state(store, "web", in_use=0, waiting=0)


def test_a_client_that_reads_a_stream_in_part(
    app: FastAPI, serve: Serve, store: MemoryStore, go_on: threading.Event
) -> None:
    client = serve(app).connect()
    client.get("/stream")
    client.read_until(b"first")
    client.leave()
    go_on.set()
    until_state(store, "web", in_use=0, waiting=0)


def test_background_tasks_hold_the_slot(
    app: FastAPI, serve: Serve, store: MemoryStore, go_on: threading.Event
) -> None:
    client = serve(app).connect()
    client.get("/background")
    client.read_until(b"sent")
    until_state(store, "web", in_use=1, waiting=0)
    go_on.set()
    until_state(store, "web", in_use=0, waiting=0)


def test_a_client_that_is_gone_leaves_the_line(
    app: FastAPI, serve: Serve, store: MemoryStore, parser: str
) -> None:
    server = serve(app, parser)
    one, two = server.connect(), server.connect()
    with SyncLimiter(store).hold(ONE):
        one.get("/slow")
        two.send(request("POST", "/echo", body=b"head tail"))
        until_state(store, "web", in_use=1, waiting=2)
        one.leave()
        until_state(store, "web", in_use=1, waiting=1)
        two.leave()
        until_state(store, "web", in_use=1, waiting=0)


@pytest.mark.parametrize("size", [9, 60_000, 200_000])
def test_a_body_arrives_whole(
    app: FastAPI, serve: Serve, store: MemoryStore, parser: str, size: int
) -> None:
    client = serve(app, parser).connect()
    sent = request("POST", "/echo", body=b"-" * (size - 4) + b"tail")
    with SyncLimiter(store).hold(ONE):
        sender = threading.Thread(target=client.send, args=(sent,))
        sender.start()
        if size <= 60_000:  # a longer one is sent to its end when the endpoint reads it
            sender.join(PATIENCE)
        until_state(store, "web", in_use=1, waiting=1)
    assert f"{size} tail!".encode() in client.read_until(b"!")
    sender.join(PATIENCE)


def test_a_body_that_fastapi_reads_itself(app: FastAPI, serve: Serve, store: MemoryStore) -> None:
    client = serve(app).connect()
    with SyncLimiter(store).hold(ONE):
        client.send(
            request("POST", "/json", "content-type: application/json", body=b'"%s"' % (b"-" * 9000))
        )
        until_state(store, "web", in_use=1, waiting=1)
    assert b"9000!" in client.read_until(b"!")


def test_a_refusal_is_a_valid_problem_without_any_handler(
    app: FastAPI, serve: Serve, store: MemoryStore
) -> None:
    server = serve(app)
    with SyncLimiter(store).hold(ONE):
        response = httpx.get(f"{server.url}/refused")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {"detail": "All slots of this limit are in use."}
    assert httpx.get(f"{server.url}/refused").json() == "done"


def test_the_handler_sends_all_of_the_problem(
    app: FastAPI, serve: Serve, store: MemoryStore
) -> None:
    app.add_exception_handler(RequestRefused, problem_response)
    server = serve(app)
    with SyncLimiter(store).hold(ONE):
        response = httpx.get(f"{server.url}/refused")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "All slots of this limit are in use.",
        "reason": "full",
        "limit": "web",
    }


def test_the_time_to_retry_is_sent(app: FastAPI, serve: Serve, store: MemoryStore) -> None:
    server = serve(app)
    with SyncLimiter(store).hold(ONE):
        pass  # a first hold is measured
    with SyncLimiter(store).hold(ONE):
        response = httpx.get(f"{server.url}/refused")
    header = response.headers.get("retry-after")
    assert header is None or header.isdecimal()


def test_a_newer_request_preempts_one_that_runs(
    app: FastAPI, serve: Serve, store: MemoryStore, go_on: threading.Event
) -> None:
    server = serve(app)
    older, newer = server.connect(), server.connect()
    older.get("/newest")
    until_state(store, "web", in_use=1, waiting=0)
    newer.get("/newest")
    assert older.read_until(b"}").startswith(b"HTTP/1.1 503 ")
    go_on.set()
    assert b"done" in newer.read_until(b"done")


def test_a_stream_whose_slot_is_lost_is_cut_off(
    app: FastAPI, serve: Serve, store: MemoryStore, limiter: Limiter
) -> None:
    client = serve(app).connect()
    client.get("/stream")
    client.read_until(b"first")
    assert asyncio.run(limiter.evict(store.inspect("web").holders[0].id))
    assert b"last" not in client.read_all()
    until_state(store, "web", in_use=0, waiting=0)


def test_websockets(app: FastAPI, serve: Serve, store: MemoryStore) -> None:
    server = serve(app)
    with SyncLimiter(store).hold(ONE), pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{server.port}/echo")
    with connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
        until_state(store, "web", in_use=1, waiting=0)
        websocket.send("a")
        assert websocket.recv() == "a"
    until_state(store, "web", in_use=0, waiting=0)


def test_a_websocket_that_waits(app: FastAPI, serve: Serve, store: MemoryStore) -> None:
    server = serve(app)
    said: list[Any] = []

    def talk() -> None:
        with connect(f"ws://127.0.0.1:{server.port}/waits") as websocket:
            websocket.send("a")
            said.append(websocket.recv())

    with SyncLimiter(store).hold(ONE):
        client = threading.Thread(target=talk)
        client.start()
        until_state(store, "web", in_use=1, waiting=1)
    client.join(PATIENCE)
    assert said == ["a"]


def test_the_view_has_the_route_and_the_endpoint(limiter: Limiter, serve: Serve) -> None:
    seen: list[Any] = []

    def look(call: Any) -> str:
        names = ("route", "path_params", "customer_id", "path")
        seen.append((*(call[name] for name in names), call.function_name.rpartition(".")[2]))
        return "all"

    router = APIRouter(prefix="/v1")

    @router.get(
        "/customers/{customer_id}",
        dependencies=[Depends(limit(limiter, ConcurrencyLimit(LIMIT_BY.fn(look), 1)))],
    )
    def customer(customer_id: int) -> int:
        return customer_id

    app = FastAPI()
    app.include_router(router, prefix="/api")
    assert httpx.get(f"{serve(app).url}/api/v1/customers/42").json() == 42
    assert seen == [
        (
            "/api/v1/customers/{customer_id}",
            {"customer_id": "42"},
            "42",
            "/api/v1/customers/42",
            "customer",
        )
    ]


def test_a_strategy_that_raises_is_an_error_of_the_server(
    limiter: Limiter, serve: Serve, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit(limiter, ConcurrencyLimit("user", 1)))])
    def hello() -> str:
        return "hello"

    assert httpx.get(serve(app).url).status_code == 500
    until(lambda: "no authentication middleware" in caplog.text, "the server logs why")
    assert list(store.keys()) == []


@pytest.mark.parametrize("found", ["0.117.1", "0.9.0"])
def test_an_older_fastapi_is_refused(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(limiter_asgi._dependency, "version", lambda _: found)
    with pytest.raises(ConfigurationError, match=f"needs FastAPI 0.118 or newer, got {found}"):
        limit(limiter, ONE)


@pytest.mark.parametrize("found", ["0.118.0", "0.118.0rc1", "1.0.0"])
def test_a_newer_fastapi_is_accepted(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(limiter_asgi._dependency, "version", lambda _: found)
    assert callable(limit(limiter, ONE))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"limit\(\) needs a Limiter, got 1"):
        limit(1, ONE)  # type: ignore[arg-type]
