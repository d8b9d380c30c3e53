"""Quickstart: one bill per customer at a time.

Six bills arrive at once, for two customers. Customers do not wait for each other. The bills of one
customer are processed one by one, in order of arrival.

It prints::

    customer 1: 10, 20, 30 (at most 1 at once)
    customer 2: 5, 6, 7 (at most 1 at once)
    in all: at most 2 at once
"""

import asyncio
from collections import defaultdict

from limiter_core import ConcurrencyLimit, Limiter

limiter = Limiter("memory://")
one_per_customer = ConcurrencyLimit("customer_id", max_concurrent=1)

billed: dict[int, list[int]] = defaultdict(list)
running: list[int] = []
most_for: dict[int, int] = defaultdict(int)
most_in_all = 0


@limiter.limited(one_per_customer)
async def bill(customer_id: int, amount: int) -> None:
    global most_in_all
    running.append(customer_id)
    most_for[customer_id] = max(most_for[customer_id], running.count(customer_id))
    most_in_all = max(most_in_all, len(running))
    await asyncio.sleep(0.02)  # the payment provider takes some time
    billed[customer_id].append(amount)
    running.remove(customer_id)


async def main() -> None:
    await asyncio.gather(bill(1, 10), bill(2, 5), bill(1, 20), bill(1, 30), bill(2, 6), bill(2, 7))
    for customer_id, amounts in sorted(billed.items()):
        listed = ", ".join(map(str, amounts))
        print(f"customer {customer_id}: {listed} (at most {most_for[customer_id]} at once)")
    print(f"in all: at most {most_in_all} at once")


asyncio.run(main())
