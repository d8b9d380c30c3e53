"""Per-tenant limits: `max_concurrent` is a function of the call, and an operator can override it.

Paying tenants get three exports at once, free tenants get one. Then the free tenant complains, and
support raises its limit while the program runs.

It prints::

    acme (pro): at most 3 at once
    solo (free): at most 1 at once
    solo after the call to support: at most 2 at once
"""

import asyncio

from limiter_core import ArgumentView, ConcurrencyLimit, Limiter

PLANS = {"acme": "pro", "solo": "free"}
SLOTS = {"pro": 3, "free": 1}


def slots_of(call: ArgumentView) -> int:
    return SLOTS[PLANS[call["tenant"]]]


limiter = Limiter("memory://")
by_plan = ConcurrencyLimit("tenant", max_concurrent=slots_of)


async def most_at_once(tenant: str) -> int:
    """Start six exports, and return how many of them ran at once, at most."""
    running = most = 0

    async def export(tenant: str) -> None:  # noqa: ARG001  (the limit uses it)
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    await asyncio.gather(*(limiter.run(by_plan, export, tenant) for _ in range(6)))
    return most


async def main() -> None:
    for tenant, plan in PLANS.items():
        print(f"{tenant} ({plan}): at most {await most_at_once(tenant)} at once")

    key = await limiter.key_for(by_plan, {"tenant": "solo"})
    await limiter.set_limit(key, 2)
    print(f"solo after the call to support: at most {await most_at_once('solo')} at once")


asyncio.run(main())
