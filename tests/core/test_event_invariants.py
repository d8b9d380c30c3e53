"""The invariants of events over random runs: one outcome per call, one end per grant."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Limiter,
    LimiterError,
    SyncLimiter,
)
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._events import EventRecorder

KEYS = ("a", "b")

CALLS = st.fixed_dictionaries(
    {
        "keys": st.sampled_from([("a",), ("b",), ("a", "b"), ("no key",)]),
        "on_conflict": st.sampled_from(list(ConflictResolution)),
        "cost": st.integers(1, 2),
        "timeout": st.sampled_from([None, None, 0.0, 5.0]),
        "max_hold": st.sampled_from([None, None, 7.0]),
        "max_waiting": st.sampled_from([None, None, 0, 1]),
        "how": st.sampled_from(["hold", "hold", "acquire", "try", "warn"]),
    }
)

STEPS = st.one_of(
    st.tuples(st.just("call"), CALLS),
    st.tuples(st.sampled_from(["cancel", "leave", "raise"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["evict", "dismiss"]), st.sampled_from(KEYS)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 3.0, 8.0])),
)


class Run:
    """Calls of one limiter, each in a task of its own."""

    def __init__(self) -> None:
        self.seen = EventRecorder()
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock)
        self.limiter = Limiter(self.store, observe=self.seen)
        self.tasks: list[asyncio.Task[None]] = []
        self.leave: list[asyncio.Future[None]] = []

    def call(self, given: dict[str, Any]) -> None:
        """Begin a call."""
        leave = asyncio.get_running_loop().create_future()
        self.leave.append(leave)
        self.tasks.append(asyncio.create_task(self._call(given, leave)))

    async def _call(self, given: dict[str, Any], leave: asyncio.Future[None]) -> None:
        limits = [
            ConcurrencyLimit(
                "missing" if key == "no key" else LIMIT_BY.constant(key),
                max_concurrent=2,
                on_conflict=given["on_conflict"],
                cost=given["cost"],
                max_hold=given["max_hold"],
                max_waiting=given["max_waiting"],
                on_lost="warn" if given["how"] == "warn" else "cancel",
            )
            for key in given["keys"]
        ]
        try:
            if given["how"] == "try":
                lease = await self.limiter.try_acquire(limits)
                if lease is not None:
                    await lease.release()
                    await lease.release()
            elif given["how"] == "acquire":
                async with await self.limiter.acquire(limits, timeout=given["timeout"]) as lease:
                    await leave
                    assert lease.lost in (True, False)
            else:
                async with self.limiter.hold(limits, timeout=given["timeout"]):
                    await leave
        except (LimiterError, ZeroDivisionError):
            pass

    async def step(self, kind: str, given: Any) -> None:
        """Do one step, and let all tasks run as far as they get."""
        if kind == "call":
            self.call(given)
        elif kind == "cancel" and given < len(self.tasks):
            self.tasks[given].cancel()
        elif kind in ("leave", "raise") and given < len(self.leave):
            if not self.leave[given].done():
                if kind == "leave":
                    self.leave[given].set_result(None)
                else:
                    self.leave[given].set_exception(ZeroDivisionError())
        elif kind == "evict":
            for holder in self.store.inspect(given).holders[:1]:
                self.store.evict(holder.id)
        elif kind == "dismiss":
            for waiter in self.store.inspect(given).waiters[:1]:
                self.store.evict_waiter(waiter.id)
        elif kind == "pass":
            self.clock.advance(given)
            for key in KEYS:
                self.store.inspect(key)
        await settle()

    async def end(self) -> None:
        """Cancel all calls that are left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await settle()


async def settle() -> None:
    """Let each task run until it waits: no step takes more rounds of the loop than this."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_each_call_has_one_outcome_and_each_grant_one_end(
    steps: list[tuple[str, Any]], anyio_backend: str
) -> None:
    async def main() -> EventRecorder:
        run = Run()
        for kind, given_ in steps:
            await run.step(kind, given_)
        await run.end()
        run.seen.check_invariants(len(run.tasks))
        return run.seen

    asyncio.run(main())


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from(KEYS)), max_size=20))
def test_the_law_holds_for_threads(steps: list[tuple[bool, str]]) -> None:
    seen = EventRecorder()
    limiter = SyncLimiter(MemoryStore(), observe=seen)
    leases: list[Any] = []
    for is_begin, key in steps:
        if is_begin:
            leases.append(limiter.try_acquire(ConcurrencyLimit(LIMIT_BY.constant(key), 1)))
        elif leases and (lease := leases.pop()) is not None:
            lease.release()
    calls = sum(is_begin for is_begin, _ in steps)
    for lease in leases:
        if lease is not None:
            lease.release()
    seen.check_invariants(calls)
