"""Everything at once, from a seed: threads, asyncio and trio over one store, costs, keys,
resolutions, timeouts, cancellations, losses. An independent recorder watches the limits.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack

import anyio
import pytest
import trio

from limiter_core import ConcurrencyLimit, ConflictResolution, Limiter, LimiterError, SyncLimiter

from ._stores import RemoteStore
from ._tools import OverlapRecorder, Thread

CAPACITY = {"a": 1, "b": 3, "c": 5}
CALLS = 120
QUEUE, PRIORITY, CANCEL = (ConflictResolution[name] for name in ("QUEUE", "PRIORITY", "CANCEL"))
GENTLE = [QUEUE, QUEUE, PRIORITY, PRIORITY, CANCEL]
HARSH = [*GENTLE, ConflictResolution.CANCEL_RUNNING, ConflictResolution.KEEP_LATEST]


class Plan:
    """One random call: which limits, how long, and what happens to it."""

    def __init__(self, random_: random.Random, resolutions: list[ConflictResolution]) -> None:
        self.keys = random_.sample(sorted(CAPACITY), random_.choice([1, 1, 1, 2, 3]))
        self.costs = {key: random_.randint(1, min(3, CAPACITY[key])) for key in self.keys}
        self.limits = [
            ConcurrencyLimit(
                "key",
                max_concurrent=CAPACITY[key],
                cost=self.costs[key],
                on_conflict=random_.choice(resolutions),
                priority=random_.randint(0, 3),
                fair_by=random_.choice([None, "tenant"]),
                scope=key,
                max_waiting=random_.choice([None, None, 4]),
            )
            for key in self.keys
        ]
        self.arguments = {"key": "x", "tenant": random_.randint(0, 3)}
        self.timeout = random_.choice([None, None, None, 0, 0.001, 0.01])
        self.pauses = random_.choice([0, 0, 0.0005])
        self.cancel_after = random_.choice([None, None, None, 0, 0.0005, 0.002])
        self.evicted = random_.random() < 0.03


class LoadTest:
    """Where the calls meet: the store, and what became of them."""

    def __init__(self, store, seed: int, resolutions: list[ConflictResolution]) -> None:
        self.store = store
        self.seed = seed
        self.resolutions = resolutions
        self.recorder = OverlapRecorder()
        self._lock = threading.Lock()
        self.ends: Counter[str] = Counter()

    def ended(self, end: str) -> None:
        with self._lock:
            self.ends[end] += 1

    def plans(self, who: str, count: int) -> list[Plan]:
        random_ = random.Random(f"{self.seed}{who}")
        return [Plan(random_, self.resolutions) for _ in range(count)]

    def inside(self, plan: Plan):
        stack = ExitStack()
        for key in plan.keys:
            stack.enter_context(self.recorder.inside(key, plan.costs[key]))
        return stack

    async def tasks(self, who: str) -> None:
        limiter = Limiter(self.store)
        async with anyio.create_task_group() as group:
            for worker in range(6):
                plans = self.plans(f"{who}{worker}", CALLS // 3)
                group.start_soon(self._task, limiter, plans)

    async def _task(self, limiter: Limiter, plans: list[Plan]) -> None:
        for plan in plans:
            end = "cancelled"
            with anyio.move_on_after(plan.cancel_after):
                end = await self._call(limiter, plan)
            self.ended(end)

    async def _call(self, limiter: Limiter, plan: Plan) -> str:
        try:
            hold = limiter.hold(plan.limits, plan.arguments, timeout=plan.timeout)
            async with hold as lease:
                # An evicted holder still runs when the next one enters: not to be counted.
                if plan.evicted:
                    await limiter.evict(lease.id)
                    await anyio.sleep(plan.pauses)
                else:
                    with self.inside(plan):
                        await anyio.sleep(plan.pauses)
        except LimiterError as error:
            return type(error).__name__
        return "done"

    def thread(self, who: str) -> None:
        limiter = SyncLimiter(self.store)
        for plan in self.plans(who, CALLS):
            self.ended(self._call_now(limiter, plan))

    def _call_now(self, limiter: SyncLimiter, plan: Plan) -> str:
        try:
            hold = limiter.hold(plan.limits, plan.arguments, timeout=plan.timeout)
            with hold as lease:
                if plan.evicted:
                    limiter.evict(lease.id)
                    time.sleep(plan.pauses)
                else:
                    with self.inside(plan):
                        time.sleep(plan.pauses)
        except LimiterError as error:
            return type(error).__name__
        return "done"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("resolutions", [GENTLE, HARSH], ids=["gentle", "harsh"])
@pytest.mark.parametrize("remote", [False, True], ids=["memory", "remote"])
def test_everything_at_once(store, seed, resolutions, remote):
    if remote:
        store = RemoteStore(steps=1, hints_only=True)
    load = LoadTest(store, seed, resolutions)
    everybody = [
        Thread(lambda: asyncio.run(load.tasks("asyncio"))),
        Thread(lambda: asyncio.run(load.tasks("another loop"))),
        Thread(lambda: trio.run(load.tasks, "trio")),
        *(Thread(load.thread, f"thread {number}") for number in range(4)),
    ]
    for thread in everybody:
        thread.result()
    assert sum(load.ends.values()) == 3 * 6 * (CALLS // 3) + 4 * CALLS
    assert load.ends["done"] > CALLS
    assert {"ConfigurationError", "KeyDerivationError"}.isdisjoint(load.ends)
    for key, capacity in CAPACITY.items():
        assert 0 < load.recorder.highest[key] <= capacity
    inner = store.inner if remote else store
    assert list(inner.keys()) == []
