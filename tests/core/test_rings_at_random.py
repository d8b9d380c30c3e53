"""Random calls in each other's blocks: what is reported never goes on, and no ring is missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass, field

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, WaitTimeout
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

STEP = 0.25
TURNS = 15
"""Turns of the event loop, at most, in which all that can be done at one moment is done."""


@dataclass
class _Run:
    """Some tasks, each of which holds limits one in the block of the other, in simulated time."""

    seed: int
    clock: FakeClock = field(default_factory=FakeClock)
    bounded: int = 0
    """Calls with a timeout that wait, and tasks that work: they go on by themselves."""

    moment: asyncio.Event = field(default_factory=asyncio.Event)
    """Set for an instant when time has passed."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.store = MemoryStore(clock=self.clock)
        self.limiter = Limiter(self.store, warn_after=None)
        slots = {key: self.random.choice((1, 1, 2, 3)) for key in "abc"}
        self.limits = {key: ConcurrencyLimit(LIMIT_BY.constant(key), n) for key, n in slots.items()}

    async def run(self) -> None:
        """Run until nothing goes on by itself any more, and long enough for a report after that."""
        tasks = [asyncio.create_task(self._task()) for _ in range(self.random.randint(3, 6))]
        idle = 0.0
        while idle < 4.0 and not all(task.done() for task in tasks):
            await self._turns()
            idle = 0.0 if self.bounded else idle + STEP
            self.clock.advance(STEP)
            self.moment.set()
            self.moment.clear()
        self.stuck = sum(not task.done() for task in tasks)
        self.held = {
            holder.id for key in self.store.keys() for holder in self.store.inspect(key).holders
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _turns(self) -> None:
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if not ready:  # nobody has anything to do
                return

    async def _task(self) -> None:
        await self._work(2.0)
        keys = self.random.choices("abc", k=self.random.randint(1, 3))
        with contextlib.suppress(WaitTimeout, ConfigurationError):
            await self._nested(keys)

    async def _nested(self, keys: list[str]) -> None:
        if not keys:
            return
        first, *rest = keys
        limits = [self.limits[first]]
        if self.random.random() < 0.2:
            limits.append(self.limits[self.random.choice([key for key in "abc" if key != first])])
        timeout = self.random.uniform(0.5, 5.0) if self.random.random() < 0.3 else None
        self.bounded += timeout is not None
        waits = [None]
        try:
            async with self.limiter.hold(limits, timeout=timeout):
                self.bounded -= timeout is not None
                waits.pop()
                await self._work(2.0)
                await self._nested(rest)
                await self._work(1.0)
        finally:
            self.bounded -= bool(waits) and timeout is not None

    async def _work(self, at_most: float) -> None:
        until = self.clock() + self.random.uniform(0, at_most)
        self.bounded += 1
        try:
            while self.clock() < until:
                await self.moment.wait()
        finally:
            self.bounded -= 1


def check_runs(seeds: range, caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """Return how many of the runs were stuck, and how many rings were reported."""
    stuck = reports = 0
    for seed in seeds:
        run = _Run(seed)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "limiter"):
            asyncio.run(run.run())
        reported = [each for each in caplog.records if "wait for each other" in each.message]
        for record in reported:
            assert set(record.lease_ids) <= run.held, f"a false alarm, seed {seed}"
        assert bool(reported) == bool(run.stuck), f"seed {seed}"
        stuck += bool(run.stuck)
        reports += len(reported)
    return stuck, reports


@pytest.mark.exhaustive
def test_what_is_reported_never_goes_on_and_no_ring_is_missed(caplog):
    stuck, reports = check_runs(range(1000), caplog)
    assert 50 < stuck <= reports


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_of_10_000_runs(caplog):
    stuck, reports = check_runs(range(10_000), caplog)
    assert 300 < stuck <= reports
