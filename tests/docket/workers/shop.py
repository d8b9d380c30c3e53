"""The tasks that worker processes do. Bodies write down when they begin and end, in Redis.

`SHOP_KILL_AT` names a point at which the process kills itself, as the system would: it is put in
from here, so that the adapter has no hooks for tests.
"""

# ruff: noqa: B008  (that is how Docket's tasks declare what they need)

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from docket import CurrentDocket, CurrentExecution, Docket, Execution, Retry
from redis.exceptions import RedisError

from limiter_core.jobs import JobGate
from limiter_core.lease import Lease
from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConflictResolution, _gates, _run, set_store

DOCKET = os.environ.get("SHOP_DOCKET", "shop")
KILL_AT = os.environ.get("SHOP_KILL_AT", "")

STORE = os.environ.get("SHOP_STORE") or None
"""The store in the docket's own Redis wakes waiting tasks itself; another notifies a worker."""

set_store(DOCKET, STORE, claim=1.5, backstop=float(os.environ.get("SHOP_BACKSTOP", "300")))


async def note(docket: Docket, kind: str, what: str) -> None:
    """Write a line; amid a failover once the servers take it.

    An error of redis-py's client for clusters must not end the body: it cannot be pickled, and then
    Docket's worker ends.
    """
    line = f"{what} {time.time()}"
    while True:
        try:
            async with docket.redis() as redis:
                await redis.rpush(f"log:{DOCKET}:{kind}", line)
        except RedisError:
            await asyncio.sleep(0.05)
        else:
            return


async def bill(
    number: int,
    customer_id: int,
    seconds: float = 0.02,
    docket: Docket = CurrentDocket(),
    limit: ConcurrencyLimit = ConcurrencyLimit("customer_id", max_concurrent=1, lease=1.5),
) -> None:
    """One at a time for each customer."""
    assert not limit.lost
    await note(docket, "begin", str(number))
    if KILL_AT == "running":
        die()
    await asyncio.sleep(seconds)
    await note(docket, "end", str(number))


async def sync(
    number: int,
    customer_id: Annotated[int, ConcurrencyLimit(1, scope="sync", lease=1.5)],
    region: Annotated[str, ConcurrencyLimit(3, scope="sync", lease=1.5)],
    docket: Docket = CurrentDocket(),
) -> None:
    """One for each customer, three for each region."""
    await note(docket, "begin", str(number))
    await asyncio.sleep(0.02)
    await note(docket, "end", str(number))


async def flaky(
    number: int,
    docket: Docket = CurrentDocket(),
    execution: Execution = CurrentExecution(),
    retry: Retry = Retry(attempts=3),
    limit: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=1, lease=1.5),
) -> None:
    """Fails each time."""
    await note(docket, "begin", f"{number}:{execution.attempt}")
    await asyncio.sleep(0.01)
    await note(docket, "end", f"{number}:{execution.attempt}")
    raise RuntimeError("so it goes")


async def newest(
    number: int,
    docket: Docket = CurrentDocket(),
    limit: ConcurrencyLimit = ConcurrencyLimit(
        LIMIT_BY.constant("newest"),
        max_concurrent=1,
        lease=1.5,
        on_conflict=ConflictResolution.CANCEL_RUNNING,
    ),
) -> None:
    """The latest wins."""
    await note(docket, "begin", str(number))
    try:
        await asyncio.sleep(0.3 if number == 9 else 30)
    finally:
        await note(docket, "end", str(number))


async def blocking(
    number: int,
    seconds: float,
    docket: Docket = CurrentDocket(),
    limit: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("blocking"), 1, lease=1.5),
) -> None:
    """Keep the event loop from doing anything else."""
    await note(docket, "begin", str(number))
    time.sleep(seconds)  # noqa: ASYNC251  (that is the point)
    await note(docket, "end", str(number))


tasks = [bill, sync, flaky, newest, blocking]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(function: Callable[..., Awaitable[Any]], point: str) -> Callable[..., Awaitable[Any]]:
    """Die before or after a function, if the point is there."""

    async def deadly(*args: Any, **kwargs: Any) -> Any:
        if f"before {point}" == KILL_AT:
            die()
        result = await function(*args, **kwargs)
        if f"after {point}" == KILL_AT:
            die()
        return result

    return deadly


if KILL_AT:
    _run.park = around(_run.park, "parking")
    _gates.bring_forward = around(_gates.bring_forward, "waking")
    Lease.release = around(Lease.release, "release")
    JobGate.admit = around(JobGate.admit, "admission")
    _gates.WorkerGates._wake = around(_gates.WorkerGates._wake, "the notice")
