"""ASGI: what the middleware costs a request, beside the same app without it.

First the apps are called as a server calls them, without the server: so its few microseconds show.
Then through uvicorn, with both of its parsers, by the processor time of the server. There the same
code costs more: between two requests the system's calls have emptied the processor's caches.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
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
    return [asyncio.run(_memory(settings)), _through_uvicorn(settings)]


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


# -- through uvicorn -------------------------------------------------------------------------------

_SERVER = Path(__file__).with_name("asgi_server.py")
_PARSERS = ("httptools", "h11")
_CONNECTIONS = (1, 8)


def _through_uvicorn(settings: Settings) -> Table:
    rows: list[Row] = []
    for parser in _PARSERS:
        with _running_server(parser) as port:
            for connections in _CONNECTIONS:
                name = f"{parser}, {connections} at a time"
                alone, limited = _processor_times(port, connections, settings)
                added = (limited - alone) / ALLOWED
                rows.append(Row(f"{name}: alone", microseconds(alone)))
                rows.append(Row(f"{name}: limited", microseconds(limited), added, _BAR))
    title = "ASGI middleware, memory store, through uvicorn"
    return Table(title, "processor time per request", "what it adds, to 25 µs", rows)


_BAR = Bar(at_most=1.0)


@contextmanager
def _running_server(parser: str) -> Generator[int]:
    process = subprocess.Popen([sys.executable, str(_SERVER), parser], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def _processor_times(port: int, connections: int, settings: Settings) -> tuple[float, float]:
    """Return the server's seconds per request without and with the limit; the least of each."""
    count = settings.scaled(200) // connections
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(connections)
        ]

        def seconds(path: str) -> float:
            before = float(_get(opened[:1], "/processor"))
            for _ in range(count):
                _get(opened, path)
            return (float(_get(opened[:1], "/processor")) - before) / (count * connections)

        for path in ("/alone", "/limited"):
            seconds(path)  # warm up
        # Many short rounds: of each a few are undisturbed, also on a machine that is busy.
        rounds = 4 * settings.rounds
        pairs = [(seconds("/alone"), seconds("/limited")) for _ in range(rounds)]
        return min(alone for alone, _ in pairs), min(limited for _, limited in pairs)


def _get(connections: list[socket.socket], path: str) -> bytes:
    """Send a request by each connection, then read the responses; return the last body."""
    for each in connections:
        each.sendall(f"GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n".encode())
    return [_body(each) for each in connections][-1]


def _body(connection: socket.socket) -> bytes:
    received, body = b"", b""
    while not body:
        received += connection.recv(65536)
        body = received.partition(b"\r\n\r\n")[2]
    return body
