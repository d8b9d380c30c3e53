"""ASGI: what the middleware costs a request, beside the same app without it.

The apps are called as a server calls them, without the server: a request through uvicorn takes
hundreds of microseconds, in which the few of a limit would be noise.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from harness import AsyncContender, Bar, Row, Settings, Table, in_turns, microseconds
from limiter_asgi import LimitMiddleware
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

ALLOWED = 25e-6
"""Seconds that a request may take longer."""

LIMITS = {
    "one limit for all": ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=10),
    "a limit for each client": ConcurrencyLimit("client", max_concurrent=10),
    "a limit for each API key": ConcurrencyLimit("headers.x-api-key", max_concurrent=10),
}

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"shop"), (b"accept", b"*/*"), (b"x-api-key", b"k1")],
    "client": ("10.0.0.7", 50123),
    "server": ("10.0.0.1", 80),
}


def tables(settings: Settings) -> list[Table]:
    """Measure on the memory store."""
    return [asyncio.run(_memory(settings))]


async def _memory(settings: Settings) -> Table:
    limiter = Limiter("memory://")
    apps: dict[str, ASGIApp] = {"Starlette alone": _hello()}
    for name, limit in LIMITS.items():
        apps[name] = LimitMiddleware(_hello(), limiter, limit)
    # Many short rounds: of each contender one is undisturbed, also on a machine that is busy.
    rounds = 10 * settings.rounds
    times = await in_turns({name: _calls(app) for name, app in apps.items()}, 500, rounds)
    best = {name: min(each) for name, each in times.items()}
    alone = best.pop("Starlette alone")
    rows = [Row("Starlette alone", microseconds(alone))]
    rows += [
        Row(name, microseconds(seconds), (seconds - alone) / ALLOWED, Bar(at_most=1.0))
        for name, seconds in best.items()
    ]
    return Table("ASGI middleware, memory store", "per request", "what it adds, to 25 µs", rows)


def _hello() -> ASGIApp:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", hello)])


def _calls(app: ASGIApp) -> AsyncContender:
    async def run(operations: int) -> None:
        for _ in range(operations):
            await app(dict(SCOPE), _receive, _send)

    return run


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_: Message) -> None: ...
