"""Jobs of Docket. The module is what its workers run; as a program it adds the jobs."""

# ruff: noqa: B008  (that is how Docket's tasks declare what they need)

from __future__ import annotations

import asyncio
from typing import Any

from docket import Docket, Retry

from limiter_docket import LIMIT_BY, ConcurrencyLimit, set_store
from tests.faults.workers.job_notes import BODY, CLAIM, LEASE, LIMITS, NUMBERS, URL, noted

NAME = "faults"

set_store(NAME, claim=CLAIM)


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(name), LIMITS[name], lease=LEASE)


async def body(number: int, lease: ConcurrencyLimit) -> None:
    with noted(number, lease.fencing_token, lease.id, lambda: lease.lost):
        await asyncio.sleep(BODY)


async def one(
    number: int, lease: ConcurrencyLimit = limit("one"), retry: Retry = Retry(attempts=20)
) -> None:
    await body(number, lease)


async def two(
    number: int, lease: ConcurrencyLimit = limit("two"), retry: Retry = Retry(attempts=20)
) -> None:
    await body(number, lease)


async def both(
    number: int,
    lease: ConcurrencyLimit = limit("one"),
    other: ConcurrencyLimit = limit("two"),
    retry: Retry = Retry(attempts=20),
) -> None:
    await body(number, lease)


tasks: list[Any] = [one, two, both]


async def add() -> None:
    async with Docket(name=NAME, url=URL) as docket:
        for number in NUMBERS:
            await docket.add(tasks[number % 3])(number)


if __name__ == "__main__":
    asyncio.run(add())
