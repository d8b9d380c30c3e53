"""Tests of your own code, without a server and without waiting.

`bill` is limited by the limiter of its module, which has its store from the environment: Redis in
production, and in tests the memory of the process, which has real limits. Doubles show what your
code does when no slot is free; a clock that the test moves shows what it does when time passes.

    pytest examples/test_your_code.py

It prints::

    test_one_call_at_a_time_for_each_customer: passed
    test_a_customer_who_is_busy_is_told_so: passed
    test_no_slot_is_free_anywhere: passed
    test_without_limits: passed
    test_a_report_that_takes_too_long_loses_its_slot: passed
"""

import asyncio
import logging
import os

from limiter_core import ConcurrencyLimit, Limiter, LimitReached, SyncLimiter
from limiter_core.testing import FakeClock, FullStore, UnlimitedStore
from limiter_memory import MemoryStore

# -- shop.py: the code under test ----------------------------------------------------------------

limiter = Limiter(os.environ.get("SHOP_LIMITER_URL", "memory://"))
per_customer = ConcurrencyLimit("customer_id", max_concurrent=1, timeout=5)
running: list[int] = []


async def bill_now(customer_id: int) -> str:
    """Bill a customer; fails if the same customer is billed at the same time."""
    assert customer_id not in running
    running.append(customer_id)
    await asyncio.sleep(0)
    running.remove(customer_id)
    return "billed"


bill = limiter.limited(per_customer)(bill_now)


async def bill_or_say_why(customer_id: int, *, limiter: Limiter = limiter) -> str:
    """Bill a customer, or say what to do."""
    try:
        async with limiter.hold(per_customer, {"customer_id": customer_id}, timeout=0):
            return await bill_now(customer_id)
    except LimitReached as refused:
        return f"come again: {refused.in_use} of {refused.max_concurrent} at work"


# -- test_shop.py ----------------------------------------------------------------------------------


def test_one_call_at_a_time_for_each_customer() -> None:
    async def many() -> list[str]:
        return await asyncio.gather(*(bill(number % 3) for number in range(12)))

    assert asyncio.run(many()) == ["billed"] * 12


def test_a_customer_who_is_busy_is_told_so() -> None:
    async def busy() -> str:
        lease = await limiter.acquire(per_customer, {"customer_id": 42})
        try:
            return await bill_or_say_why(42)
        finally:
            await lease.release()

    assert asyncio.run(busy()) == "come again: 1 of 1 at work"


def test_no_slot_is_free_anywhere() -> None:
    said = asyncio.run(bill_or_say_why(42, limiter=Limiter(FullStore())))
    assert said.startswith("come again")


def test_without_limits() -> None:
    assert asyncio.run(bill_now(42)) == "billed"
    assert asyncio.run(bill_or_say_why(42, limiter=Limiter(UnlimitedStore()))) == "billed"


logging.getLogger("limiter").addHandler(logging.NullHandler())  # a lost slot is logged


def test_a_report_that_takes_too_long_loses_its_slot() -> None:
    clock = FakeClock()
    reports = SyncLimiter(MemoryStore(clock=clock))
    limit = ConcurrencyLimit("report", max_concurrent=1, max_hold=60)
    lease = reports.acquire(limit, {"report": 7})
    clock.advance(61)
    with reports.hold(limit, {"report": 7}, timeout=0):
        assert lease.lost


if __name__ == "__main__":
    for name, test in [each for each in globals().items() if each[0].startswith("test_")]:
        test()
        print(f"{name}: passed")
