"""Code as users type it. `make types` has both checkers read it, strictly; a test runs it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar, assert_type

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConcurrencyStrategy,
    ConflictResolution,
    Lease,
    Limiter,
    SyncLease,
    SyncLimiter,
)

P = ParamSpec("P")
R = TypeVar("R")

limiter = Limiter()
threads = SyncLimiter()
per_customer = ConcurrencyLimit("customer", 5)
everyone = ConcurrencyLimit(LIMIT_BY.constant("api"), max_concurrent=100)

# -- limits ----------------------------------------------------------------------------------------

ConcurrencyLimit(["region", "tier"], max_concurrent=lambda call: 5 if call["paid"] else 1)
ConcurrencyLimit("customer", on_conflict=ConflictResolution.CANCEL)
ConcurrencyLimit("customer", on_conflict="cancel")
ConcurrencyLimit("customer", on_conflict="KEEP_LATEST", timeout=5, on_lost="warn")


class ByTier(ConcurrencyStrategy):
    def get_key(self, execution: ArgumentView) -> str:
        return f"tier:{execution['tier']}"


class ByTierLater(ConcurrencyStrategy):
    async def get_key(self, execution: ArgumentView) -> str:
        return f"tier:{execution['tier']}"


ConcurrencyLimit(ByTier() & LIMIT_BY.fn_name)
ConcurrencyLimit(ByTierLater(), fair_by="tenant")

# -- decorated functions that yield ----------------------------------------------------------------


@limiter.limited(per_customer)
async def chunks(customer: int) -> AsyncIterator[bytes]:
    yield str(customer).encode()


@limiter.limited(per_customer)
async def answers(customer: int) -> AsyncGenerator[int, str]:
    got = yield customer
    yield len(got)


@threads.limited(per_customer)
def lines(customer: int) -> Generator[str, None, int]:
    yield str(customer)
    return customer


async def read_streams() -> None:
    assert_type(chunks(42), AsyncIterator[bytes])
    assert_type(answers(customer=42), AsyncGenerator[int, str])
    assert_type(lines(42), Generator[str, None, int])
    assert list(lines(42)) == ["42"]
    assert [chunk async for chunk in chunks(42)] == [b"42"]


# -- decorated coroutine functions -----------------------------------------------------------------


@limiter.limited(per_customer)
async def bill(customer: int, *, amount: int = 0) -> str:
    return f"{customer}: {amount}"


@limiter.limited([everyone, per_customer], timeout=5)
async def first(customer: int, items: list[R]) -> R:
    return items[0]


def logged(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(function)
    async def logged_function(*args: P.args, **kwargs: P.kwargs) -> R:
        return await function(*args, **kwargs)

    return logged_function


@logged
@limiter.limited(per_customer)
@logged
async def logged_thrice(customer: int) -> int:
    return customer


class Shop:
    @limiter.limited(per_customer)
    async def sell(self, customer: int) -> str:
        return f"{customer}"

    @classmethod
    @limiter.limited(per_customer)
    async def open(cls, customer: int) -> type[Shop]:
        return cls

    @staticmethod
    @limiter.limited(per_customer)
    async def greet(customer: int) -> str:
        return f"hello {customer}"

    @threads.limited(per_customer)
    def pack(self, customer: int) -> int:
        return customer

    @property
    @threads.limited(everyone)
    def size(self) -> int:
        return 3

    @classmethod
    @threads.limited(per_customer)
    def named(cls, customer: int) -> str:
        return f"{cls.__name__} {customer}"

    @staticmethod
    @threads.limited(per_customer)
    def doubled(customer: int) -> int:
        return 2 * customer


class Job:
    async def __call__(self, customer: int) -> str:
        return f"job of {customer}"


@threads.limited(per_customer)
def charge(customer: int, amount: float = 1.0) -> float:
    return customer * amount


# -- around a block --------------------------------------------------------------------------------


@asynccontextmanager
async def session(customer: int) -> AsyncGenerator[Lease, None]:
    async with limiter.hold([everyone, per_customer], {"customer": customer}) as lease:
        yield lease


@contextmanager
def sync_session(customer: int) -> Generator[SyncLease, None, None]:
    with threads.hold(per_customer, {"customer": customer}) as lease:
        yield lease


async def main() -> list[str]:
    """Use them all; return what was seen."""
    task: asyncio.Task[str] = asyncio.create_task(bill(1))
    async with asyncio.TaskGroup() as group:
        second = group.create_task(bill(2, amount=3))
        group.create_task(logged_thrice(3))
    bills = await asyncio.gather(bill(1), bill(2))
    await read_streams()
    assert_type(await first(1, ["a", "b"]), str)
    assert_type(await first(1, [2]), int)
    shop = Shop()
    seen = [await task, second.result(), *bills, await shop.sell(4), await Shop.greet(5)]
    assert_type(await Shop.open(6), type[Shop])
    bound = limiter.limited(per_customer)(shop.sell)
    called = limiter.limited(per_customer)(Job())
    seen += [await bound(7), await called(customer=8)]
    async with session(9) as lease:
        assert_type(lease, Lease)
    seen.append(await limiter.run(per_customer, bill, 10, amount=11))
    seen.append(await asyncio.wait_for(bill(12), timeout=5))
    await asyncio.to_thread(sync_main)
    return seen


def sync_main() -> None:
    """Use those for threads."""
    shop = Shop()
    assert_type(charge(1, amount=2.0), float)
    assert_type(shop.pack(1), int)
    assert_type(shop.size, int)
    assert_type(Shop.named(1), str)
    assert_type(shop.doubled(1), int)
    assert_type(threads.run(per_customer, charge, 1), float)
    half = threads.limited(per_customer)(functools.partial(charge, amount=0.5))
    assert_type(half(4), float)
    with sync_session(2) as lease:
        assert_type(lease, SyncLease)
