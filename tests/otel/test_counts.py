"""What is counted of any calls: one outcome each, and in the end nothing is held and nothing waits.

Also where most waits are beyond the sample, and so counted without an event.
"""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import limiter_otel
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    LimiterError,
    StoreError,
    SyncLimiter,
)
from limiter_core.requests import Demand
from limiter_memory import MemoryStore
from limiter_otel import LimiterInstrumentor
from tests.core._interrupts import Other
from tests.core._throw import Thrower, Thrown, sweep
from tests.core._tools import Thread, until_now, until_waiting, until_waiting_now

from ._telemetry import Telemetry

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, name="billing")
LIMITS = (
    ONE,
    ConcurrencyLimit(LIMIT_BY.constant("two"), 2, timeout=0.01, name="short"),
    ConcurrencyLimit(LIMIT_BY.constant("two"), 2, on_conflict="keep_latest", name="latest"),
    (ONE, ConcurrencyLimit(LIMIT_BY.constant("two"), 2, name="both")),
)


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limiter_otel._sample.PER_SECOND", 2)


def outcomes(telemetry: Telemetry) -> float:
    """Return the number of outcomes; a call under two limits counts for both."""
    return sum(telemetry.values("limiter.calls").values())


@pytest.mark.usefixtures("small_sample")
def test_threads_and_loops_at_once(telemetry: Telemetry) -> None:
    store = MemoryStore()
    made = [0] * 8
    """Outcomes that each thread's calls have: one for each name."""

    async def in_loop(number: int, chance: random.Random) -> None:
        limiter = Limiter(store)

        async def call(limits: object, patience: float) -> None:
            with suppress(LimiterError, TimeoutError):
                async with asyncio.timeout(patience), limiter.hold(limits):  # type: ignore[arg-type]
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(60):
                limits = chance.choice(LIMITS)
                made[number] += len(limits) if isinstance(limits, tuple) else 1
                tasks.create_task(call(limits, chance.choice([0.002, 30.0])))

    def in_thread(number: int, chance: random.Random) -> None:
        limiter = SyncLimiter(store)
        for _ in range(30):
            limits = chance.choice(LIMITS)
            made[number] += len(limits) if isinstance(limits, tuple) else 1
            with suppress(LimiterError), limiter.hold(limits):
                pass

    def work(number: int) -> None:
        chance = random.Random(number)
        if number % 2:
            asyncio.run(in_loop(number, chance))
        else:
            in_thread(number, chance)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes(telemetry) == sum(made)
    assert set(telemetry.values("limiter.held").values()) == {0}
    assert set(telemetry.values("limiter.waiting").values()) == {0}
    assert telemetry.waiting_remembered() == 0
    measured = sum(telemetry.values("limiter.wait.duration").values())
    assert len(telemetry.waits()) == measured, "each wait that is measured is a span"


@pytest.mark.parametrize("is_counted_alone", [False, True])
def test_a_wait_that_outlives_it_is_forgotten(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, *, is_counted_alone: bool
) -> None:
    if is_counted_alone:
        monkeypatch.setattr("limiter_otel._sample.PER_SECOND", 0)
    store = MemoryStore()
    limiter = SyncLimiter(store)
    with limiter.hold(ONE):
        waiter = Thread(lambda: limiter.acquire(ONE).release())
        until_waiting_now(store, "one", 1)
        assert telemetry.values("limiter.waiting") == {("billing",): 1}
        LimiterInstrumentor().uninstrument()
        LimiterInstrumentor().instrument(
            tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider
        )
        assert telemetry.values("limiter.waiting") == {("billing",): 0}
    waiter.result()
    assert telemetry.values("limiter.waiting") == {("billing",): 0}
    assert telemetry.values("limiter.held") == {("billing",): 0}


@pytest.mark.parametrize(
    "per_second",
    [
        pytest.param(0, id="counted alone"),
        pytest.param(1_000_000, id="of the sample", marks=pytest.mark.exhaustive),
    ],
)
def test_an_exception_thrown_in_leaves_no_wait_that_is_counted(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, per_second: int
) -> None:
    """As a signal handler raises it, at any line of the package."""
    monkeypatch.setattr("limiter_otel._sample.PER_SECOND", per_second)
    soon = replace(ONE, timeout=0.001)

    def trial(thrower: Thrower) -> None:
        store = MemoryStore()
        holder = Other(store, "holder", Demand("one", 1))
        thrower.files = (str(Path(limiter_otel.__file__).parent),)
        with thrower.tracing(), suppress(Thrown, LimiterError):
            SyncLimiter(store).acquire(soon)
        holder.leave()
        assert telemetry.values("limiter.waiting").get(("billing",), 0) == 0
        assert telemetry.waiting_remembered() == 0

    assert sweep(trial) > 10


@pytest.mark.exhaustive
def test_an_exception_thrown_in_at_a_grant_leaves_no_wait_that_is_counted(
    telemetry: Telemetry,
) -> None:
    def trial(thrower: Thrower) -> None:
        store = MemoryStore()
        holder = Other(store, "holder", Demand("one", 1))
        thrower.files = (str(Path(limiter_otel.__file__).parent),)

        def call() -> None:
            with thrower.tracing(), suppress(Thrown, LimiterError):
                SyncLimiter(store).acquire(replace(ONE, timeout=30)).release()

        waiter = Thread(call)
        until_now(
            lambda: store.inspect("one").waiting == 1 or not waiter.is_alive(), "it waits, or ended"
        )
        holder.leave()
        waiter.result()
        assert telemetry.values("limiter.waiting").get(("billing",), 0) == 0
        assert telemetry.waiting_remembered() == 0

    assert sweep(trial) > 10


def test_an_exception_thrown_into_a_reader_changes_no_count(telemetry: Telemetry) -> None:
    granted = 0

    def trial(thrower: Thrower) -> None:
        nonlocal granted
        granted += 1
        thrower.files = (str(Path(limiter_otel.__file__).parent),)
        with SyncLimiter(MemoryStore()).hold(ONE):
            with thrower.tracing(), suppress(Thrown):
                telemetry.values("limiter.calls")
            assert telemetry.values("limiter.held") == {("billing",): 1}
        assert telemetry.values("limiter.held") == {("billing",): 0}
        assert outcomes(telemetry) == granted

    assert sweep(trial) > 10


@pytest.mark.usefixtures("small_sample")
async def test_calls_of_a_limiter_that_is_closed_wait_no_more(telemetry: Telemetry) -> None:
    store = MemoryStore()
    holder, limiter = Limiter(store), Limiter(store)
    async with holder.hold(ONE):

        async def wait() -> None:
            with pytest.raises(StoreError):
                await limiter.acquire(ONE)

        waiters = [asyncio.create_task(wait()) for _ in range(20)]
        await until_waiting(store, "one", 20)
        assert telemetry.values("limiter.waiting") == {("billing",): 20}
        await limiter.aclose()
        await asyncio.gather(*waiters)
        assert telemetry.values("limiter.waiting") == {("billing",): 0}
    assert telemetry.values("limiter.calls")["billing", "failed"] == 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
