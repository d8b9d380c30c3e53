"""A web app with one report at a time for each customer, and no more than one more that waits.

Three requests for the same customer arrive at once, and one for another. One is served, one waits
for it, and one is refused with 503; the other customer does not notice. A report is a stream, and
holds its slot until its last line was sent.

It prints::

    customer 1: 200, 200, 503
    customer 2: 200
    the refusal: queue_full of per customer
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from limiter_asgi import RequestRefused, limit, problem_response
from limiter_core import ConcurrencyLimit, Limiter

# -- the app: your code would look like this -----------------------------------------------------

limiter = Limiter("memory://")
per_customer = ConcurrencyLimit("customer_id", 1, max_waiting=1, timeout=30, name="per customer")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Close the limiter when the app ends."""
    async with limiter:
        yield


app = FastAPI(lifespan=lifespan)
app.add_exception_handler(RequestRefused, problem_response)


@app.get("/reports/{customer_id}", dependencies=[Depends(limit(limiter, per_customer))])
async def report(customer_id: int) -> StreamingResponse:
    """Send a report, line by line."""

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{customer_id},{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/csv")


# -- the server, and its clients -----------------------------------------------------------------


async def main() -> None:
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
    serving = asyncio.create_task(server.serve([place]))
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.getsockname()[1]}") as client:
        one = [client.get("/reports/1") for _ in range(3)]
        *same, other = await asyncio.gather(*one, client.get("/reports/2"))
    print("customer 1:", ", ".join(str(status) for status in sorted(r.status_code for r in same)))
    print("customer 2:", other.status_code)
    problem = next(response.json() for response in same if response.status_code == 503)
    print("the refusal:", problem["reason"], "of", problem["limit"])
    server.should_exit = True
    await serving


asyncio.run(main())
