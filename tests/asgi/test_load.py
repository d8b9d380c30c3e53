"""Many clients at once, some of which leave at random: the limit holds, and no slot is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from limiter_asgi import LimitMiddleware
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_memory import MemoryStore

from ._server import PATIENCE, Server, request, until_state

THREE = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=3)
CLIENTS = 20
REQUESTS = 15


class Overlap:
    """An app that counts how many of its endpoints run at once."""

    def __init__(self) -> None:
        self.running = self.peak = 0
        self.app = Starlette(
            routes=[
                Route("/stream", self.stream, methods=["POST"]),
                Route("/echo", self.echo, methods=["POST"]),
            ]
        )

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            self.running -= 1

    async def chunks(self, body: bytes) -> AsyncIterator[bytes]:
        with self.counted():
            for part in (body[:-4], body[-4:]):
                await asyncio.sleep(0.003)
                yield part

    async def stream(self, request: Request) -> Response:
        return StreamingResponse(self.chunks(await request.body()))

    async def echo(self, request: Request) -> Response:
        with self.counted():
            body = await request.body()
            await asyncio.sleep(0.003)
        return PlainTextResponse(body)


async def visit(port: int, chance: random.Random) -> str:
    """Send a request, and read the answer, a part of it, or nothing; return what became of it."""
    body = b"-" * chance.choice([0, 10, 70_000]) + b"tail"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        path = chance.choice(["/stream", "/echo"])
        writer.write(request("POST", path, "connection: close", body=body))
        part = chance.choice([0, 100, -1, -1])
        if part == 0:  # it leaves while it waits, or while it is served
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), chance.random() * 0.03)
            return "left"
        answer = await asyncio.wait_for(reader.read(part), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert part == 100 or b"tail" in answer
        return "read" if part == -1 else "read in part"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_never_more_than_the_limit_and_no_slot_is_left(
    limiter: Limiter, store: MemoryStore, serve: Callable[..., Server], parser: str
) -> None:
    overlap = Overlap()
    server = serve(LimitMiddleware(overlap.app, limiter, THREE), parser)

    async def client(number: int) -> list[str]:
        chance = random.Random(number)
        return [await visit(server.port, chance) for _ in range(REQUESTS)]

    async def all_clients() -> Any:
        return await asyncio.gather(*map(client, range(CLIENTS)))

    fates = Counter(fate for each in asyncio.run(all_clients()) for fate in each)
    until_state(store, "web", in_use=0, waiting=0)
    assert (overlap.peak, overlap.running) == (3, 0)
    assert set(fates) == {"left", "read", "read in part"}
