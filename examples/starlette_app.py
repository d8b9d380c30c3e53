"""Server-sent events of Starlette: two subscribers at a time on each topic, and none that waits.

The middleware is in the route, so it knows the parameters of the path. Two clients subscribe to a
topic, a third is refused, and another topic is free. When a subscriber leaves, its slot is free at
once: Starlette ends the stream.

It prints::

    subscribed to news: 200, 200
    a third is refused: 503 full
    subscribed to sports: 200
    after one has left: 200
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from limiter_asgi import LimitMiddleware
from limiter_core import ConcurrencyLimit, Limiter

# -- the app: your code would look like this -----------------------------------------------------

limiter = Limiter("memory://")
per_topic = ConcurrencyLimit("topic", 2, on_conflict="cancel", name="per topic")


async def events(request: Request) -> StreamingResponse:
    """Send an event of a topic each tenth of a second, for ever."""

    async def stream() -> AsyncIterator[str]:
        while True:
            yield f"data: news of {request.path_params['topic']}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(stream(), media_type="text/event-stream")


around = Middleware(LimitMiddleware, limiter=limiter, limits=per_topic)
app = Starlette(routes=[Route("/topics/{topic}", events, middleware=[around])])

# -- the server, and its clients -----------------------------------------------------------------


async def clients(client: httpx.AsyncClient) -> None:
    async def subscribe(topic: str) -> httpx.Response:
        return await subscriptions.enter_async_context(client.stream("GET", f"/topics/{topic}"))

    async with AsyncExitStack() as subscriptions:
        first, second = await subscribe("news"), await subscribe("news")
        print(f"subscribed to news: {first.status_code}, {second.status_code}")
        third = await subscribe("news")
        await third.aread()
        print(f"a third is refused: {third.status_code} {third.json()['reason']}")
        print(f"subscribed to sports: {(await subscribe('sports')).status_code}")
        await first.aclose()
        while (await limiter.inspect("topic=news")).in_use == 2:
            await asyncio.sleep(0.01)
        print(f"after one has left: {(await subscribe('news')).status_code}")


async def main() -> None:
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
    serving = asyncio.create_task(server.serve([place]))
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.getsockname()[1]}") as client:
        await clients(client)
    server.should_exit = True
    await serving
    await limiter.aclose()


asyncio.run(main())
