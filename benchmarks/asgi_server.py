"""The server of `asgi.py`: uvicorn with a "hello" app, alone and under a limit.

python benchmarks/asgi_server.py h11|httptools

Prints its port. `/alone` and `/limited` say hello; `/processor` says how many seconds of processor
time this process has used.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Literal, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from limiter_asgi import LimitMiddleware
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_web.server import bind

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("web"), max_concurrent=100)


async def hello(_: Request) -> PlainTextResponse:
    """Say hello."""
    return PlainTextResponse("hello")


async def processor(_: Request) -> PlainTextResponse:
    """Say how much processor time was used."""
    return PlainTextResponse(repr(time.process_time()))


def app() -> ASGIApp:
    """Return the app; under both paths is the same, but for the limit.

    No router chooses between them: it would look at one of them after the other.
    """
    apps: dict[str, ASGIApp] = {
        "/processor": Starlette(routes=[Route("/processor", processor)]),
        "/alone": Starlette(routes=[Route("/alone", hello)]),
        "/limited": LimitMiddleware(
            Starlette(routes=[Route("/limited", hello)]), Limiter("memory://"), LIMIT
        ),
    }

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[scope["path"]](scope, receive, send)

    return choose


async def serve(parser: Literal["h11", "httptools"]) -> None:
    """Serve on a free port until the process is ended."""
    with bind("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(
            app(),
            http=parser,
            loop="asyncio",
            log_level="warning",
            access_log=False,
            lifespan="off",
        )
        await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    asyncio.run(serve(cast(Literal["h11", "httptools"], sys.argv[1])))
