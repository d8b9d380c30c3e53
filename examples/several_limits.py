"""Several limits: a call takes all of its slots, or takes none while it waits.

A printer shop has three printers, and no customer may use more than two. The third job of the first
customer waits, but it does not occupy the third printer: the second customer can use it.

It prints::

    customer 1: starts job 1
    customer 1: starts job 2
    customer 2: starts job 4
    printers in use: 3, waiting for one: 0
    customer 1 uses 2 of 2, waiting: 1
    customer 1: starts job 3
"""

import asyncio

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

limiter = Limiter("memory://")
printers = ConcurrencyLimit(LIMIT_BY.constant("printers"), max_concurrent=3)
per_customer = ConcurrencyLimit("customer_id", max_concurrent=2)


async def print_job(customer_id: int, job: int, paper_is_out: asyncio.Event) -> None:
    async with limiter.hold([printers, per_customer], {"customer_id": customer_id}):
        print(f"customer {customer_id}: starts job {job}")
        await paper_is_out.wait()


async def main() -> None:
    paper_is_out = asyncio.Event()
    async with asyncio.TaskGroup() as jobs:
        for customer_id, job in ((1, 1), (1, 2), (1, 3), (2, 4)):
            jobs.create_task(print_job(customer_id, job, paper_is_out))
        while (await limiter.inspect(printers)).in_use < 3:
            await asyncio.sleep(0)

        state = await limiter.inspect(printers)
        print(f"printers in use: {state.in_use}, waiting for one: {state.waiting}")
        state = await limiter.inspect(per_customer, {"customer_id": 1})
        print(f"customer 1 uses {state.in_use} of {state.limit}, waiting: {state.waiting}")
        paper_is_out.set()


asyncio.run(main())
