"""What a limit on Redis costs a request: one command before its body, and nothing behind it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing

import pytest
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from limiter_asgi import LimitMiddleware, limit
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, events
from tests.redis._servers import Process, server_program

from ._server import Server, until

Serve = Callable[..., Server]

WEB = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=3)
PATHS = ["/middleware", "/depends"]


@pytest.fixture
def redis_server() -> Iterator[Process]:
    program = server_program()
    with closing(Process(program)) as server:
        yield server


class App:
    """An app with a limit, whose responses freeze the Redis server behind their last byte.

    Attributes:
        before_body: how often the store's script was called when the endpoint began.
        released: how many requests have released their slots.
    """

    def __init__(self, redis_server: Process) -> None:
        self.before_body = 0
        self.freezes = False
        self._redis = redis_server
        self.released = 0
        limiter = Limiter(redis_server.url, observe=self._count)
        around = Middleware(LimitMiddleware, limiter=limiter, limits=WEB)
        self.app = FastAPI(
            routes=[Route("/middleware", self.hello, methods=["POST"], middleware=[around])],
        )
        held = [Depends(limit(limiter, WEB))]
        self.app.post("/depends", dependencies=held, response_model=None)(self.hello)

    def _count(self, event: events.Event) -> None:
        self.released += isinstance(event, events.Released)

    def scripts(self) -> int:
        return self._redis.calls()

    async def hello(self, _: Request) -> StreamingResponse:
        self.before_body = self.scripts()

        async def body() -> AsyncIterator[bytes]:
            yield b"first "
            if self.freezes:
                self._redis.signal(signal.SIGSTOP)
            yield b"last"

        return StreamingResponse(body())


def post(server: Server, path: str) -> bytes:
    client = server.connect()
    client.send(f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n".encode())
    return client.read_until(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("path", PATHS)
def test_one_command_goes_before_the_body(
    path: str, redis_server: Process, serve: Serve, parser: str
) -> None:
    app = App(redis_server)
    server = serve(app.app, parser)
    post(server, path)  # the script is loaded
    costs: list[tuple[int, int]] = []
    for number in range(1, 6):
        until(lambda: app.released == number, "it is released")  # noqa: B023  (called here)
        before = app.scripts()
        post(server, path)
        until(lambda: app.released == number + 1, "it is released")  # noqa: B023  (called here)
        until(lambda: app.scripts() - before >= 2, "the server knows")  # noqa: B023  (likewise)
        costs.append((app.before_body - before, app.scripts() - before))
    # Renewals come from the background, now and then between the two counts.
    assert min(costs) == (1, 2)


@pytest.mark.parametrize("path", PATHS)
def test_the_last_byte_does_not_wait_for_the_release(
    path: str, redis_server: Process, serve: Serve, parser: str
) -> None:
    app = App(redis_server)
    server = serve(app.app, parser)
    post(server, path)
    app.freezes = True
    try:
        answer = post(server, path)  # up to the end of its chunks, while nothing answers
    finally:
        redis_server.signal(signal.SIGCONT)
    assert b"last" in answer
    assert answer.endswith(b"0\r\n\r\n")
    app.freezes = False
    assert b"last" in post(server, path)
