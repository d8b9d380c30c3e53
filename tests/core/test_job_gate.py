"""What only the gate of asyncio frameworks does: waking in turn, sweeping, closing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import limiter_core
from limiter_core import ArgumentView, ConcurrencyLimit, SyncLimiter, events
from limiter_core.jobs import Held, Job, JobGate, Waiting
from limiter_core.requests import Notice
from limiter_core.store import Capabilities
from limiter_core.testing import AwaitedStore
from limiter_memory import MemoryStore
from tests.core._events import EventRecorder
from tests.core._tools import until

KEY = "customer=42"


@pytest.fixture
def anyio_backend() -> str:
    """These gates are for asyncio."""
    return "asyncio"


def job(name: str, **options: Any) -> Job:
    limit = ConcurrencyLimit("customer", max_concurrent=1, **options)
    return Job(f"{name}#1", limit, ArgumentView({"customer": 42}), name.encode())


class Faces:
    """A store of two given faces."""

    capabilities = Capabilities(suspends=False)

    def __init__(self, sync: Any, asynchronous: Any) -> None:
        self.sync_face = lambda: sync
        self.async_face = lambda: asynchronous


async def test_a_gate_of_a_coroutine_function_wakes_in_turn_and_drops_what_is_gone() -> None:
    store = MemoryStore()
    woken: list[str] = []
    go_on = asyncio.Event()

    async def wake(notice: Notice) -> bool:
        name = notice.payload.decode()
        if name == "second":
            await go_on.wait()
        woken.append(name)
        return name != "third"

    async with JobGate(store, "queue", wake) as gate:
        first = await gate.admit(job("first"))
        assert not isinstance(first, Waiting | Held)
        for name in ("second", "third", "fourth", "fifth"):
            assert isinstance(await gate.admit(job(name)), Waiting)
        sync = SyncLimiter(store)
        sync.set_limit(KEY, 4)  # the second, third and fourth are handed a slot, in this order
        await asyncio.sleep(0)
        assert woken == []
        go_on.set()
        # The third is gone, so the fifth has its slot: all before the gate is closed.
        await until(lambda: len(woken) == 4, "four are woken")
        await first.release()
    assert woken == ["second", "third", "fourth", "fifth"]


async def test_a_refused_job_that_is_gone_when_it_is_to_be_woken() -> None:
    """No delivery asks for it again, so its refusal is sent now."""
    seen = EventRecorder()
    remove = limiter_core.observe(seen)

    async def wake(_: Notice) -> bool:
        return False

    async with JobGate(MemoryStore(), "queue", wake) as gate:
        first = await gate.admit(job("first", on_conflict="keep_latest"))
        assert not isinstance(first, Waiting | Held)
        for name in ("second", "third"):
            await gate.admit(job(name, on_conflict="keep_latest"))
        await until(lambda: bool(seen.all(events.Refused)), "the second is superseded")
        await first.release()
        await until(lambda: bool(seen.all(events.Cancelled)), "the third is gone, too")
    remove()
    assert seen.one(events.Refused).id == "second#1"
    seen.check_invariants(3)


async def test_closing_a_gate_waits_for_those_that_are_being_woken() -> None:
    woken: list[str] = []

    async def wake(notice: Notice) -> bool:
        await asyncio.sleep(0.01)
        woken.append(notice.payload.decode())
        return True

    async with JobGate(MemoryStore(), "queue", wake) as gate:
        first = await gate.admit(job("first"))
        assert not isinstance(first, Waiting | Held)
        assert isinstance(await gate.admit(job("second")), Waiting)
        await first.release()
    assert woken == ["second"]


async def test_the_adapter_hears_of_a_loss_in_the_event_loop() -> None:
    store = MemoryStore()
    received: list[int] = []
    async with JobGate(store, "queue", lambda _: None) as gate:
        lease = await gate.admit(job("first"), lambda _: received.append(threading.get_ident()))
        assert not isinstance(lease, Waiting | Held)
        await asyncio.to_thread(SyncLimiter(store).evict, lease.id)
        await until(lambda: bool(received), "it is notified")
    assert received == [threading.get_ident()]


@pytest.mark.parametrize("owns_store", [True, False])
async def test_a_gate_closes_the_store_that_it_owns(owns_store: bool) -> None:
    closed: list[bool] = []

    class Noting(AwaitedStore):
        async def aclose(self) -> None:
            closed.append(True)

    store = MemoryStore()
    async with JobGate(Faces(store, Noting(store)), "queue", lambda _: None, owns_store=owns_store):
        pass
    assert closed == [True] * owns_store


def test_a_gate_that_is_made_before_its_event_loop_wakes_in_that() -> None:
    woken: list[str] = []

    async def wake(notice: Notice) -> bool:
        woken.append(notice.payload.decode())
        return True

    async def work() -> None:
        async with gate:
            first = await gate.admit(job("first"))
            assert not isinstance(first, Waiting | Held)
            assert isinstance(await gate.admit(job("second")), Waiting)
            await first.release()

    gate = JobGate(MemoryStore(), "queue", wake)
    asyncio.run(work())
    assert woken == ["second"]


async def test_a_gate_whose_closing_is_cancelled_hears_no_more_notices() -> None:
    woken: list[str] = []
    go_on = asyncio.Event()

    async def wake(notice: Notice) -> bool:
        woken.append(notice.payload.decode())
        await go_on.wait()
        return True

    store = MemoryStore()
    gate = JobGate(store, "queue", wake)
    first = await gate.admit(job("first"))
    assert not isinstance(first, Waiting | Held)
    for name in ("second", "third"):
        assert isinstance(await gate.admit(job(name)), Waiting)
    await first.release()
    await until(lambda: bool(woken), "the second is being woken")
    closing = asyncio.create_task(gate.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    assert (await asyncio.gather(closing, return_exceptions=True))[0].__class__ is (
        asyncio.CancelledError
    )
    SyncLimiter(store).set_limit(KEY, 3)  # the third is handed a slot: whose gate is notified?
    go_on.set()
    await asyncio.sleep(0.01)
    assert woken == ["second"]


async def test_a_refused_job_that_is_gone_is_reported_with_its_key() -> None:
    """By a worker that never had it."""
    store = MemoryStore()

    async def wake(notice: Notice) -> bool:
        return False

    async with JobGate(store, "queue", wake) as gate:
        holder = await gate.admit(job("holder"))
        assert not isinstance(holder, Waiting | Held)
        assert isinstance(await gate.admit(job("gone")), Waiting)
    seen = EventRecorder()
    remove = limiter_core.observe(seen)
    try:
        async with JobGate(store, "queue", wake) as gate:
            await gate.sweep()
            assert store.evict_waiter("gone#1")
            await until(lambda: seen.all(events.Refused), "it is reported")
    finally:
        remove()
    await holder.release()
    refused = seen.one(events.Refused)
    assert (refused.keys, refused.names) == ((KEY,), ("customer",))


async def test_a_job_whose_ask_is_cancelled_before_it_begins_ends_at_once() -> None:
    """As all tasks of a loop are when it ends."""
    async with JobGate(MemoryStore(), "queue", lambda _: None) as gate:
        others = asyncio.all_tasks()
        asking = asyncio.ensure_future(gate.admit(job("first")))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - others:  # of which one has not begun
            task.cancel()
        ended, _ = await asyncio.wait([asking], timeout=5)
        assert ended
        assert asking.cancelled()
        taken = await gate.admit(job("second"))
        assert not isinstance(taken, Waiting | Held)
        await taken.release()
