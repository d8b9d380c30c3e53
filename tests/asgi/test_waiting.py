"""A client that is gone while it waits leaves the line, and nothing that one sends is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from limiter_asgi import LimitMiddleware
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter, events
from limiter_memory import MemoryStore

from ._server import PATIENCE, Server, request, until, until_state

ONE = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1)

Serve = Callable[..., Server]


async def echo(request: Request) -> Response:
    """Answer with how long the body is, and what it begins and ends with."""
    body = await request.body()
    return PlainTextResponse(f"{len(body)} {body[:4].decode()} {body[-4:].decode()}!")


async def parts(request: Request) -> Response:
    """Send back the body, read part by part."""
    return PlainTextResponse(b"".join([part async for part in request.stream()]) + b"!")


async def watches(request: Request) -> Response:
    """Answer when the client is there still, and end when it is gone."""

    async def ticks() -> Any:
        yield "there"
        while not await request.is_disconnected():  # noqa: ASYNC110  (as an endpoint does it)
            await asyncio.sleep(0.002)

    return StreamingResponse(ticks())


@pytest.fixture
def app(limiter: Limiter) -> Any:
    paths = {"/echo": echo, "/parts": parts, "/watches": watches}
    routes = [Route(path, each, methods=["GET", "POST"]) for path, each in paths.items()]
    return LimitMiddleware(Starlette(routes=routes), limiter, ONE)


@pytest.fixture
def server(app: Any, serve: Serve, parser: str) -> Server:
    return serve(app, parser)


def body_of(size: int) -> bytes:
    return b"head" + b"-" * (size - 8) + b"tail"


def test_a_client_that_is_gone_leaves_the_line(
    app: Any, serve: Serve, store: MemoryStore, parser: str
) -> None:
    client = serve(app, parser).connect()
    with SyncLimiter(store).hold(ONE):
        client.get("/echo")
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until_state(store, "web", in_use=1, waiting=0)
    until_state(store, "web", in_use=0, waiting=0)


def test_its_event_says_that_it_left(serve: Serve, store: MemoryStore) -> None:
    seen: list[events.Event] = []
    app = LimitMiddleware(Starlette(), Limiter(store, observe=seen.append), ONE)
    client = serve(app).connect()
    with SyncLimiter(store).hold(ONE):
        client.get("/")
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until(lambda: len(seen) == 2, "the call has an outcome")
    assert [type(event) for event in seen] == [events.Queued, events.Cancelled]


@pytest.mark.parametrize("size", [8, 60_000])
def test_a_client_that_has_sent_a_small_body_leaves_the_line(
    app: Any, serve: Serve, store: MemoryStore, parser: str, size: int
) -> None:
    client = serve(app, parser).connect()
    with SyncLimiter(store).hold(ONE):
        client.send(request("POST", "/echo", body=body_of(size)))
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until_state(store, "web", in_use=1, waiting=0)


@pytest.mark.parametrize("path", ["/echo", "/parts"])
@pytest.mark.parametrize("size", [8, 60_000, 70_000, 3_000_000])
def test_a_body_that_was_sent_while_waiting_arrives_whole(
    server: Server, store: MemoryStore, size: int, path: str
) -> None:
    client = server.connect()
    body = body_of(size)
    head, tail = request("POST", path, body=body)[:-4], body[-4:]
    with SyncLimiter(store).hold(ONE):
        sender = threading.Thread(target=client.send, args=(head,))
        sender.start()
        until_state(store, "web", in_use=1, waiting=1)
    sender.join(PATIENCE)
    client.send(tail)
    answer = body + b"!" if path == "/parts" else f"{size} head tail!".encode()
    assert client.read_until(b"!").partition(b"\r\n\r\n")[2] == answer
    until_state(store, "web", in_use=0, waiting=0)


def test_the_app_notices_after_the_wait_that_its_client_is_gone(
    app: Any, serve: Serve, store: MemoryStore, parser: str
) -> None:
    client = serve(app, parser).connect()
    with SyncLimiter(store).hold(ONE):
        client.get("/watches")
        until_state(store, "web", in_use=1, waiting=1)
    client.read_until(b"there")
    until_state(store, "web", in_use=1, waiting=0)
    client.leave()
    until_state(store, "web", in_use=0, waiting=0)


def test_requests_on_one_connection_wait_one_after_the_other(
    app: Any, serve: Serve, store: MemoryStore, parser: str
) -> None:
    client = serve(app, parser).connect()
    with SyncLimiter(store).hold(ONE):
        client.send(request("POST", "/echo", body=body_of(8)) + request("GET", "/echo"))
        until_state(store, "web", in_use=1, waiting=1)
    answer = client.read_until(b"0  !")
    assert answer.index(b"8 head tail!") < answer.index(b"0  !")


class Outside(BaseHTTPMiddleware):
    """A middleware that runs the app in a task of its own, with a `receive` of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)


def test_behind_a_middleware_that_wraps_receive(
    app: Any, serve: Serve, store: MemoryStore, parser: str
) -> None:
    server = serve(Outside(app), parser)
    client, second = server.connect(), server.connect()
    with SyncLimiter(store).hold(ONE):
        client.get("/echo")
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until_state(store, "web", in_use=1, waiting=0)
        second.send(request("POST", "/echo", body=body_of(60_000)))
        until_state(store, "web", in_use=1, waiting=1)
    assert b"60000 head tail!" in second.read_until(b"!")
    until_state(store, "web", in_use=0, waiting=0)


def test_a_client_that_is_gone_is_no_error_of_the_app(
    app: Any, serve: Serve, store: MemoryStore, parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's middleware raises if the app inside sends no response."""
    server = serve(Outside(app), parser)
    client = server.connect()
    with SyncLimiter(store).hold(ONE):
        client.get("/echo")
        until_state(store, "web", in_use=1, waiting=1)
        client.leave()
        until_state(store, "web", in_use=1, waiting=0)
    server.end()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class FakeServer:
    """Hands out messages, one for each `receive`; counts the calls, and the messages taken."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.asked = 0
        self.taken = 0
        self.more = anyio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        while self.taken == len(self.messages):
            await self.more.wait()
        self.taken += 1
        return self.messages[self.taken - 1]

    def add(self, *messages: dict[str, Any]) -> None:
        self.messages += messages
        more, self.more = self.more, anyio.Event()
        more.set()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def until_here(condition: Callable[[], bool], name: str) -> None:
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up_at, f"never came true: {name}"
        await anyio.sleep(0.001)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def is_waiting(store: MemoryStore) -> bool:
    return store.inspect("web").waiting == 1


async def test_no_more_than_64_kib_are_kept(limiter: Limiter, store: MemoryStore) -> None:
    got: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["more_body"]:
            got.append(message["body"])

    server = FakeServer(*(part(b"%d" % number * 16384) for number in range(8)))
    server.add(part(b"", more=False))
    limited = LimitMiddleware(app, limiter, ONE)
    async with anyio.create_task_group() as group, limiter.hold(ONE):
        group.start_soon(limited, {"type": "http"}, server.receive, server.send)
        await until_here(lambda: is_waiting(store), "the request waits")
        await until_here(lambda: server.taken == 4, "64 KiB were taken")
    assert got == [b"%d" % number * 16384 for number in range(8)]


async def test_what_comes_between_the_grant_and_the_next_receive_is_not_lost(
    limiter: Limiter, store: MemoryStore
) -> None:
    runs, got = anyio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.set()
        with anyio.move_on_after(0.01):  # as Starlette's `is_disconnected` gives up
            await receive()
        server.add(part(b"a"), part(b"b", more=False))
        got.extend([await receive(), await receive()])

    server = FakeServer()
    limited = LimitMiddleware(app, limiter, ONE)
    async with anyio.create_task_group() as group:
        async with limiter.hold(ONE):
            group.start_soon(limited, {"type": "http"}, server.receive, server.send)
            await until_here(lambda: is_waiting(store), "the request waits")
            await until_here(lambda: server.asked == 1, "the client is watched")
        await runs.wait()
    assert got == [part(b"a"), part(b"b", more=False)]


async def test_a_request_that_has_waited_is_left_without_the_collector(limiter: Limiter) -> None:
    made: list[weakref.ref[Any]] = []

    class Body(bytearray):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            made.append(weakref.ref(self))

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    server = FakeServer({"type": "http.request", "body": Body(1000), "more_body": True})
    limited = LimitMiddleware(app, limiter, ONE)
    gc.collect()
    gc.disable()
    try:
        async with anyio.create_task_group() as group:
            async with limiter.hold(ONE):
                group.start_soon(limited, {"type": "http"}, server.receive, server.send)
                await until_here(lambda: server.asked == 2, "its body is kept")
            server.messages.clear()
        await until_here(lambda: made[0]() is None, "what was kept is left")
    finally:
        gc.enable()


async def test_a_client_that_is_gone_is_not_served(limiter: Limiter, store: MemoryStore) -> None:
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append("it")

    server = FakeServer()
    limited = LimitMiddleware(app, limiter, ONE)
    async with anyio.create_task_group() as group, limiter.hold(ONE):
        group.start_soon(limited, {"type": "http"}, server.receive, server.send)
        await until_here(lambda: is_waiting(store), "the request waits")
        server.add({"type": "http.disconnect"})
        await until_here(lambda: not is_waiting(store), "the request left the line")
    assert (served, store.inspect("web").in_use) == ([], 0)
    assert [message.get("status") for message in server.sent] == [499, None]


async def test_a_server_that_fails_does_so_where_the_app_receives(
    limiter: Limiter, store: MemoryStore
) -> None:
    got: list[str] = []
    asked: list[str] = []

    async def receive() -> Any:
        asked.append("once")
        raise OSError("no connection")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(OSError, match="no connection"):
            await receive()
        got.append("it")

    server = FakeServer()
    async with anyio.create_task_group() as group, limiter.hold(ONE):
        limited = LimitMiddleware(app, limiter, ONE)
        group.start_soon(limited, {"type": "http"}, receive, server.send)
        await until_here(lambda: is_waiting(store), "the request waits")
        await until_here(lambda: bool(asked), "the client is watched")
    assert got == ["it"]


async def test_a_request_that_is_cancelled_by_others_is_cancelled(
    limiter: Limiter, store: MemoryStore
) -> None:
    server = FakeServer()
    limited = LimitMiddleware(Starlette(), limiter, ONE)
    async with limiter.hold(ONE):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(limited, {"type": "http"}, server.receive, server.send)
                await until_here(lambda: is_waiting(store), "the request waits")
                scope.cancel()
        assert scope.cancelled_caught
        assert not is_waiting(store)


async def test_of_a_request_that_is_refused_at_once_nothing_is_received(
    limiter: Limiter, store: MemoryStore
) -> None:
    """To receive is to answer a client that asks whether to send its body: it does, then."""
    none_waits = ConcurrencyLimit(LIMIT_BY.constant("web"), 1, on_conflict="cancel")
    server = FakeServer(part(b"", more=False))

    async def send(message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        await server.send(message)

    with SyncLimiter(store).hold(ONE):
        await LimitMiddleware(Starlette(), limiter, none_waits)(
            {"type": "http"}, server.receive, send
        )
    assert server.sent[0]["status"] == 503
    assert server.asked == 0


async def test_a_wait_that_times_out_is_refused(limiter: Limiter, store: MemoryStore) -> None:
    soon = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, timeout=0.02)
    server = FakeServer(part(b"", more=False))
    with SyncLimiter(store).hold(ONE):
        await LimitMiddleware(Starlette(), limiter, soon)(
            {"type": "http"}, server.receive, server.send
        )
    assert server.sent[0]["status"] == 503
    assert b'"reason":"timeout"' in server.sent[1]["body"]
