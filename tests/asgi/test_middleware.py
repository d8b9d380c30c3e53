"""What is held when: up to the last byte, the end of the client, or that of the app."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from limiter_asgi import LimitMiddleware
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    LimitReached,
    events,
)
from limiter_memory import MemoryStore

from ._server import PATIENCE, Server, request, until, until_state

ONE = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1)
NONE_WAITS = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=1, on_conflict="cancel")

Serve = Callable[..., Server]


class Stages:
    """An app whose endpoints wait for the test, and note how far they are."""

    def __init__(self, limiter: Limiter, limit: ConcurrencyLimit = ONE) -> None:
        self.go_on = threading.Event()
        self.seen: list[str] = []
        self.app = Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/stream", self.stream),
                Route("/events", self.events),
                Route("/background", self.background),
                Route("/fails", self.fails),
                Route("/slow", self.slow),
            ],
            middleware=[Middleware(LimitMiddleware, limiter=limiter, limits=limit)],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.seen.append("lifespan")
        yield

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    async def wait(self) -> None:
        while not self.go_on.is_set():  # noqa: ASYNC110  (it is set by another thread)
            await asyncio.sleep(0.002)

    async def chunks(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await self.wait()
            yield "last"
        finally:
            self.seen.append("stream ended")

    async def stream(self, request: Request) -> Response:
        return StreamingResponse(self.chunks())

    async def ticks(self) -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.005)

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self.ticks(), media_type="text/event-stream")

    async def background(self, request: Request) -> Response:
        return PlainTextResponse("sent", background=BackgroundTask(self.wait))

    async def fails(self, request: Request) -> Response:
        raise LimitReached("another", 1, 1)

    async def slow(self, request: Request) -> Response:
        self.seen.append("slow")
        await self.wait()
        return PlainTextResponse("sent to nobody")


@pytest.fixture
def stages(limiter: Limiter) -> Stages:
    return Stages(limiter)


def test_a_request_holds_a_slot_and_its_lifespan_none(
    stages: Stages, serve: Serve, store: MemoryStore, parser: str
) -> None:
    server = serve(stages.app, parser)
    assert stages.seen == ["lifespan"]
    assert httpx.get(f"{server.url}/hello").text == "hello"
    until_state(store, "web", in_use=0, waiting=0)


def test_a_stream_holds_its_slot_up_to_the_last_byte(
    stages: Stages, serve: Serve, store: MemoryStore, parser: str
) -> None:
    server = serve(stages.app, parser)
    client, second = server.connect(), server.connect()
    client.get("/stream")
    client.read_until(b"first")
    second.get("/hello")
    until_state(store, "web", in_use=1, waiting=1)
    stages.go_on.set()
    assert b"last" in client.read_until(b"0\r\n\r\n")
    assert b"hello" in second.read_until(b"hello")
    until_state(store, "web", in_use=0, waiting=0)


def test_a_stream_that_is_read_in_part_holds_its_slot_until_the_client_is_gone(
    stages: Stages, serve: Serve, store: MemoryStore, parser: str
) -> None:
    client = serve(stages.app, parser).connect()
    client.get("/stream")
    client.read_until(b"first")
    until_state(store, "web", in_use=1, waiting=0)
    client.leave()
    until_state(store, "web", in_use=0, waiting=0)
    assert stages.seen == ["lifespan", "stream ended"]


def test_server_sent_events_hold_a_slot_until_the_client_is_gone(
    stages: Stages, serve: Serve, store: MemoryStore
) -> None:
    server = serve(stages.app)
    with httpx.stream("GET", f"{server.url}/events") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: tick"
        until_state(store, "web", in_use=1, waiting=0)
    until_state(store, "web", in_use=0, waiting=0)


def test_an_app_that_does_not_notice_that_its_client_is_gone_holds_its_slot_to_its_end(
    stages: Stages, serve: Serve, store: MemoryStore
) -> None:
    server = serve(stages.app)
    client, second = server.connect(), server.connect()
    client.get("/slow")
    until(lambda: "slow" in stages.seen, "the endpoint runs")
    client.leave()
    second.get("/hello")
    until_state(store, "web", in_use=1, waiting=1)
    stages.go_on.set()
    assert b"hello" in second.read_until(b"hello")


def test_background_tasks_hold_no_slot(stages: Stages, serve: Serve, store: MemoryStore) -> None:
    client = serve(stages.app).connect()
    client.get("/background")
    assert b"sent" in client.read_until(b"sent")
    until_state(store, "web", in_use=0, waiting=0)
    assert not stages.go_on.is_set()
    stages.go_on.set()


def test_an_app_that_raises_releases_its_slot_and_its_own_refusal_is_none_of_the_middleware(
    stages: Stages, serve: Serve, store: MemoryStore
) -> None:
    server = serve(stages.app)
    assert httpx.get(f"{server.url}/fails").status_code == 500
    until_state(store, "web", in_use=0, waiting=0)
    assert httpx.get(f"{server.url}/hello").status_code == 200


def test_each_request_of_a_connection_holds_a_slot_of_its_own(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    server = serve(Stages(limiter, NONE_WAITS).app)
    with httpx.Client() as client:
        for _ in range(5):
            assert client.get(f"{server.url}/hello").status_code == 200
            until_state(store, "web", in_use=0, waiting=0)


def test_requests_that_are_sent_at_once_are_served_in_their_order(
    stages: Stages, serve: Serve, store: MemoryStore, parser: str
) -> None:
    client = serve(stages.app, parser).connect()
    client.send(request("GET", "/hello") * 2 + request("GET", "/stream"))
    client.read_until(b"first")
    until_state(store, "web", in_use=1, waiting=0)
    stages.go_on.set()
    client.read_until(b"0\r\n\r\n")
    until_state(store, "web", in_use=0, waiting=0)


def test_a_response_whose_slot_is_lost_is_cut_off(
    limiter: Limiter,
    serve: Serve,
    store: MemoryStore,
    parser: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = serve(Stages(limiter).app, parser).connect()
    client.get("/stream")
    client.read_until(b"first")
    assert asyncio.run(limiter.evict(store.inspect("web").holders[0].id))
    rest = client.read_all()
    assert b"last" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    until(lambda: "lost the lease on 'web'" in caplog.text, "the server logs why")


def test_a_request_whose_slot_is_lost_before_its_response_is_refused(
    stages: Stages, serve: Serve, store: MemoryStore, limiter: Limiter
) -> None:
    client = serve(stages.app).connect()
    client.get("/slow")
    until(lambda: "slow" in stages.seen, "the endpoint runs")
    assert asyncio.run(limiter.evict(store.inspect("web").holders[0].id))
    answer = client.read_until(b"}")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"reason":"lost"' in answer


async def test_a_slot_that_is_lost_after_a_hint_is_answered(
    limiter: Limiter, store: MemoryStore
) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint)
        await limiter.evict(store.inspect("web").holders[0].id)
        await anyio.sleep(PATIENCE)

    sent: list[dict[str, Any]] = []
    await run_with(LimitMiddleware(app, limiter, ONE), sent, {"type": "http"})
    assert sent[0] == hint
    assert (sent[1]["type"], sent[1]["status"]) == ("http.response.start", 503)


def test_events_name_the_adapter(store: MemoryStore, serve: Serve) -> None:
    seen: list[events.Event] = []
    server = serve(Stages(Limiter(store, observe=seen.append)).app)
    httpx.get(f"{server.url}/hello")
    until(lambda: len(seen) == 2, "the slot was granted and released")
    assert [(type(event), event.adapter) for event in seen] == [
        (events.Granted, "asgi"),
        (events.Released, "asgi"),
    ]


async def run_with(app: Any, sent: list[dict[str, Any]], scope: dict[str, Any]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)


@pytest.mark.parametrize(
    ("messages", "held_after"),
    [
        ([{"type": "http.response.body", "body": b"a", "more_body": True}], 1),
        ([{"type": "http.response.body", "body": b"a"}], 0),
        ([{"type": "http.response.zerocopysend", "file": 3}], 0),
        ([{"type": "http.response.pathsend", "path": "/a"}], 0),
    ],
    ids=["more to come", "the whole body", "an open file", "a path"],
)
async def test_the_last_message_of_a_response_ends_it(
    limiter: Limiter, store: MemoryStore, messages: list[dict[str, Any]], held_after: int
) -> None:
    held = -1

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal held
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert store.inspect("web").in_use == 1
        for message in messages:
            await send(message)
        held = store.inspect("web").in_use

    await run_with(LimitMiddleware(app, limiter, ONE), [], {"type": "http"})
    assert held == held_after
    assert store.inspect("web").in_use == 0


async def test_a_response_with_trailers_ends_with_them(
    limiter: Limiter, store: MemoryStore
) -> None:
    held: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        held.append(store.inspect("web").in_use)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        held.append(store.inspect("web").in_use)
        await send({"type": "http.response.trailers", "headers": []})
        held.append(store.inspect("web").in_use)

    await run_with(LimitMiddleware(app, limiter, ONE), [], {"type": "http"})
    assert held == [1, 1, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limiter": "memory://"}, "needs a Limiter, got 'memory://'"),
        ({"limits": "client"}, "LimitMiddleware needs a ConcurrencyLimit or a list of them"),
        ({"on_refused": 500}, "503, or 429 where a limit is the client's own, got 500"),
        ({"arguments": {"a": 1}}, "a function of the HTTPConnection, got {'a': 1}"),
    ],
    ids=["no limiter", "no limit", "no status of a refusal", "no function"],
)
def test_wrong_settings_are_refused(given: dict[str, Any], message: str, limiter: Limiter) -> None:
    settings: dict[str, Any] = {"limiter": limiter, "limits": ONE, **given}
    with pytest.raises(ConfigurationError, match=message):
        LimitMiddleware(Starlette(), **settings)
