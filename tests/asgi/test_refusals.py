"""What a client is answered that is not served."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from limiter_asgi import LimitMiddleware
from limiter_asgi._refusals import refused
from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    LimitReached,
    QueueFull,
    StoreUnavailable,
    Superseded,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.errors import Evicted, LeaseLost, LimiterError
from limiter_memory import MemoryStore

from ._server import Server, until_state

Serve = Callable[..., Server]

KEY = "query_params.token=secret"


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


def limited(limiter: Limiter, **settings: Any) -> tuple[ConcurrencyLimit, Any]:
    on_refused = settings.pop("on_refused", 503)
    limit = ConcurrencyLimit("query_params.token", 1, name="per token", **settings)
    app = Starlette(routes=[Route("/", hello)])
    return limit, LimitMiddleware(app, limiter, limit, on_refused=on_refused)


@pytest.mark.parametrize("status", [503, 429])
def test_a_refusal_is_a_problem_with_no_data_of_the_user(
    limiter: Limiter, serve: Serve, store: MemoryStore, status: int
) -> None:
    limit, app = limited(limiter, on_conflict="cancel", on_refused=status)
    server = serve(app)
    with SyncLimiter(store).hold(limit, {"query_params": {"token": "secret"}}):
        response = httpx.get(f"{server.url}/?token=secret")
        assert httpx.get(f"{server.url}/?token=other").status_code == 200
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": {503: "Service Unavailable", 429: "Too Many Requests"}[status],
        "status": status,
        "detail": "All slots of this limit are in use.",
        "reason": "full",
        "limit": "per token",
    }
    assert httpx.get(f"{server.url}/?token=secret").status_code == 200


def test_a_queue_that_is_full(limiter: Limiter, serve: Serve, store: MemoryStore) -> None:
    limit, app = limited(limiter, max_waiting=1)
    server = serve(app)
    with SyncLimiter(store).hold(limit, {"query_params": {"token": "secret"}}):
        client = server.connect()
        client.get("/?token=secret")
        until_state(store, KEY, in_use=1, waiting=1)
        assert httpx.get(f"{server.url}/?token=secret").json()["reason"] == "queue_full"
    assert b"hello" in client.read_until(b"hello")


def test_a_newer_request(limiter: Limiter, serve: Serve, store: MemoryStore) -> None:
    limit, app = limited(limiter, on_conflict="keep_latest")
    server = serve(app)
    older, newer = server.connect(), server.connect()
    with SyncLimiter(store).hold(limit, {"query_params": {"token": "secret"}}):
        older.get("/?token=secret")
        until_state(store, KEY, in_use=1, waiting=1)
        newer.get("/?token=secret")
        assert b'"reason":"superseded"' in older.read_until(b"}")
    assert b"hello" in newer.read_until(b"hello")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LimitReached(KEY, 1, 1), "full"),
        (QueueFull(KEY, 1, 1), "queue_full"),
        (WaitTimeout(KEY, 1, 1), "timeout"),
        (Evicted(KEY, 1, 1), "evicted"),
        (Superseded(KEY), "superseded"),
        (LeaseLost("1", [KEY], "it expired"), "lost"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_refusal_has_its_reason_and_no_key(error: LimiterError, reason: str) -> None:
    found = refused(error, 429)
    assert (found.status_code, found.problem["reason"]) == (429, reason)
    assert "secret" not in json.dumps(found.problem)
    assert "retry-after" not in (found.headers or {})


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (90, "90")])
def test_the_time_to_retry_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    headers = refused(LimitReached(KEY, 1, 1, seconds), 503).headers
    assert headers is not None
    assert headers["retry-after"] == header


def test_a_store_that_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    found = refused(StoreUnavailable("redis://cache does not answer"), 429)
    assert (found.status_code, found.problem["reason"]) == (503, "unavailable")
    assert "cache" not in json.dumps(found.problem)
    assert "redis://cache does not answer" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_limiter_that_is_closed_while_requests_wait(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    limit, app = limited(limiter)
    client = serve(app).connect()
    with SyncLimiter(store).hold(limit, {"query_params": {"token": "secret"}}):
        client.get("/?token=secret")
        until_state(store, KEY, in_use=1, waiting=1)
        limiter._engine.close()
        assert b'"reason":"unavailable"' in client.read_until(b"}")
