"""What may happen while a call takes a slot of a store that never suspends."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    LeaseLost,
    Limiter,
    StoreUnavailable,
)
from limiter_core.requests import Answer, Request
from limiter_memory import MemoryStore

from ._tools import until

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


class Store(MemoryStore):
    """A store in which something happens as it is asked."""

    happens: Callable[[Request], object]

    def acquire(self, request: Request) -> Answer:
        answer = super().acquire(request)
        self.happens(request)
        return answer


async def body() -> str:
    return "done"


async def test_a_slot_that_is_lost_before_its_call_knows_of_it() -> None:
    store = Store()
    store.happens = lambda request: store.evict(request.id)
    with pytest.raises(LeaseLost):
        await Limiter(store).run(ONE, body)
    assert list(store.keys()) == []


@pytest.mark.parametrize("on_store_error", ["raise", "admit"])
async def test_a_store_that_gives_no_answer(on_store_error: str) -> None:
    def fail(_: Request) -> None:
        raise StoreUnavailable("it does not answer")

    store = Store()
    store.happens = fail
    limiter = Limiter(store, on_store_error=on_store_error)  # type: ignore[arg-type]
    if on_store_error == "admit":
        assert await limiter.run(ONE, body) == "done"
        assert limiter.admitted_without_store == 1
    else:
        with pytest.raises(StoreUnavailable):
            await limiter.run(ONE, body)
    assert list(store.keys()) == []


async def test_a_call_in_a_call_that_would_wait_for_itself() -> None:
    store = MemoryStore()
    limiter = Limiter(store)

    async def calls_itself() -> str:
        return await limiter.run(ONE, body)

    with pytest.raises(ConfigurationError, match="already holds 1 of the 1 slots"):
        await limiter.run(ONE, calls_itself)
    assert list(store.keys()) == []


async def test_a_call_does_not_pass_one_that_waits_for_more() -> None:
    """S8: there is a slot that would do for it."""
    store = MemoryStore()
    limiter = Limiter(store)
    narrow, wide = (ConcurrencyLimit(LIMIT_BY.constant("two"), 2, cost=cost) for cost in (1, 2))
    ran: list[str] = []

    async def call(limit: ConcurrencyLimit, name: str) -> None:
        async def note() -> None:
            ran.append(name)

        await limiter.run(limit, note)

    async with anyio.create_task_group() as tasks, limiter.hold(narrow):
        tasks.start_soon(call, wide, "wide")
        await until(lambda: store.inspect("two").waiting == 1, "the wide one waits")
        tasks.start_soon(call, narrow, "narrow")
        await until(lambda: store.inspect("two").waiting == 2, "the narrow one waits")
    assert ran == ["wide", "narrow"]
