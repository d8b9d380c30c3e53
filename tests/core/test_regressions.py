"""What a review found, each with the test that failed before."""

from __future__ import annotations

import threading

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    Limiter,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Request
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))


def test_a_hold_closed_by_the_garbage_collector_in_the_midst_of_a_step() -> None:
    """The collector may run while the store's lock is held, in the very thread that holds it."""
    store = MemoryStore()
    limiter = SyncLimiter(store)
    per_customer = ConcurrencyLimit("c", max_concurrent=1_000_000)

    class Box:
        pass

    def stream(customer: int):
        with limiter.hold(per_customer, {"c": customer}):
            yield 1
            yield 2

    def abandon() -> None:
        for number in range(5_000):
            box = Box()
            box.me = box
            box.generator = stream(number % 50)
            next(box.generator)

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive(), "a step waits for itself"


def test_what_was_handed_over_counts_not_what_is_claimed() -> None:
    """The functions of a job's call may answer differently when it runs."""
    store = MemoryStore()
    store.acquire(Request("holder", (Demand("key", 2, 2),)))
    store.acquire(Request("job", (Demand("key", 2, 1),), payload=b""))
    store.release("holder")
    assert isinstance(store.acquire(Request("job", (Demand("other", 9, 2),), payload=b"")), Granted)
    assert store.inspect("key").in_use == 1
    assert store.release("job")
    assert list(store.keys()) == []


async def test_a_slot_given_back_early_has_no_deadline_left() -> None:
    limiter = Limiter()
    short = ConcurrencyLimit(LIMIT_BY.constant("key"), max_hold=0.02)
    async with limiter.hold(short) as lease:
        await lease.release()
        with anyio.move_on_after(0.1) as longer:
            await anyio.sleep_forever()
    assert longer.cancelled_caught


def test_a_waiter_that_went_to_another_queue_and_came_back_knows_when_to_look() -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    told: list[str] = []

    class Listener:
        def __init__(self, name: str) -> None:
            self.name = name

        def look_again(self, answer: object = None) -> bool:
            told.append(self.name)
            return True

        def lease_lost(self, loss: object) -> None:
            pass

        def lease_renewed(self, expires_at: float) -> None:
            pass

    both = (Demand("a", 1), Demand("b", 1))
    store.acquire(Request("on a", (Demand("a", 1),), lease=20))
    store.acquire(Request("on b", (Demand("b", 1),), lease=100))
    waiter = Request("waiter", both, listener=Listener("waiter"))
    store.acquire(waiter)
    store.release("on a")  # it moves to the queue of b
    store.acquire(waiter)
    store.acquire(Request("again on a", (Demand("a", 1),), lease=20))
    told.clear()
    store.release("on b")  # it comes back to the queue of a
    assert told == ["waiter"]
    assert store.acquire(waiter).look_again == 20


@pytest.mark.parametrize("lease_id", [None, "", [], 5])
async def test_a_lease_is_named_by_its_id(lease_id) -> None:
    with pytest.raises(ConfigurationError, match="a lease is named by its id"):
        await Limiter().evict(lease_id)


async def test_arguments_without_names_are_listed_too() -> None:
    with pytest.raises(KeyDerivationError, match="there are: 1"):
        await Limiter().key_for(ConcurrencyLimit("customer_id"), {1: 2})


async def test_the_extra_fields_of_a_model_count() -> None:
    class Order(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    limit, limiter = ConcurrencyLimit("order"), Limiter()
    one = await limiter.key_for(limit, {"order": Order(a=1, b=2)})
    assert one != await limiter.key_for(limit, {"order": Order(a=1, b=3)})


async def test_a_number_too_large_to_print_within_a_list() -> None:
    with pytest.raises(KeyDerivationError, match="too large to print"):
        await Limiter().key_for(ConcurrencyLimit("n"), {"n": [10**5000]})
    assert ONE.strategy == LIMIT_BY.constant("key")
