"""Django on an ASGI server: one request at a time for each API key, and one more that waits.

`LimitMiddleware` is around all of Django. Three requests with the same key arrive at once, and one
with another. One is served, one waits for it, and one is refused with 429; the other key does not
notice. A report is a stream, and holds its slot until its last line was sent.

It prints::

    key one: 200, 200, 429
    key two: 200
    the refusal: queue_full of per API key
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import django
import httpx
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from limiter_asgi import LimitMiddleware
from limiter_core import ConcurrencyLimit, Limiter

# -- settings.py, views.py, urls.py ----------------------------------------------------------------

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)


async def report(_: HttpRequest) -> StreamingHttpResponse:
    """Send a report, line by line."""

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"line {number}\n"
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(lines(), content_type="text/csv")


urlpatterns = [path("report", report)]

# -- asgi.py ---------------------------------------------------------------------------------------

limiter = Limiter("memory://")
per_key = ConcurrencyLimit("api_key", 1, max_waiting=1, timeout=30, name="per API key")


def api_key(connection: HTTPConnection) -> dict[str, str]:
    """Return what to limit by; requests without a key have the same one."""
    return {"api_key": connection.headers.get("x-api-key", "")}


django.setup()
site = cast("ASGIApp", get_asgi_application())
application = LimitMiddleware(site, limiter, per_key, arguments=api_key, on_refused=429)

# -- the server, and its clients -----------------------------------------------------------------


async def main() -> None:
    place = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, ws="none", lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([place]))
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{place.getsockname()[1]}/report"
    async with httpx.AsyncClient() as client:
        keys = ["one", "one", "one", "two"]
        *same, other = await asyncio.gather(
            *(client.get(url, headers={"x-api-key": key}) for key in keys)
        )
    print("key one:", ", ".join(sorted(str(r.status_code) for r in same)))
    print("key two:", other.status_code)
    problem = next(response.json() for response in same if response.status_code == 429)
    print("the refusal:", problem["reason"], "of", problem["limit"])
    server.should_exit = True
    await serving
    await limiter.aclose()


asyncio.run(main())
