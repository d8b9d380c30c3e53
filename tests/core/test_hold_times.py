"""When a call that was refused is advised to try again: from the mean hold of its limit's name."""

import heapq
import itertools
import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConflictResolution,
    LimitReached,
    QueueFull,
    SyncLease,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core._hold_times import MAX_NAMES, HoldTimes, expected_wait, hold_times
from limiter_core._retry_advice import MAX_KEYS, RetryAdvice
from limiter_core.jobs import Job, SyncJobGate
from limiter_core.requests import Demand
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

HOLD = 2.0
_numbers = itertools.count()


def _demand(name: str) -> Demand:
    return Demand("key", 1, name=name)


def _mean(times: HoldTimes, name: str) -> float:
    found = times.of(name)
    assert found is not None
    return found.mean


def test_the_mean_of_constant_holds_is_their_length():
    times = HoldTimes()
    for _ in range(50):
        times.note((_demand("a"),), 3.0)
    assert times.of("a") == pytest.approx((10, 3.0, 0.0))
    assert times.of("b") is None


def test_the_last_holds_count_most():
    times = HoldTimes()
    for held in [100.0] * 100 + [1.0] * 50:
        times.note((_demand("a"),), held)
    assert _mean(times, "a") == pytest.approx(1.0, abs=1.0)


def test_the_deviation_is_the_mean_difference_from_the_mean():
    times = HoldTimes()
    for held in [2.0, 4.0] * 50:
        times.note((_demand("a"),), held)
    found = times.of("a")
    assert found is not None
    assert found.mean == pytest.approx(3.0, abs=0.2)
    assert found.deviation == pytest.approx(1.0, abs=0.2)


def test_a_hold_counts_for_each_of_its_limits():
    times = HoldTimes()
    times.note((_demand("a"), _demand("b")), 3.0)
    assert (_mean(times, "a"), _mean(times, "b")) == (3.0, 3.0)


def test_the_number_of_names_is_bounded():
    times = HoldTimes()
    for number in range(2 * MAX_NAMES):
        times.note((_demand(str(number)),), 1.0)
    known = [n for n in range(2 * MAX_NAMES) if times.of(str(n)) is not None]
    assert known == list(range(MAX_NAMES, 2 * MAX_NAMES))


@pytest.mark.parametrize(
    ("slots", "held_for", "ahead", "expected"),
    [
        (1, 3.0, 0, 7.0),
        (1, 3.0, 2, 27.0),
        (5, 3.0, 10, 27.0),
        (1, 10.0, 0, 0.5),  # about to end: but never at once
        (1, 30.0, 0, 20.0),  # held for longer than usual: as long again
        (1, None, 0, 5.0),
        (4, None, 0, 2.0),
    ],
)
def test_the_expected_wait(slots, held_for, ahead, expected):
    assert expected_wait(10.0, slots, held_for, ahead) == pytest.approx(expected)


def _advice(mean: float = 10.0) -> RetryAdvice:
    times = HoldTimes()
    times.note((_demand("a"),), mean)
    return RetryAdvice(times)


def test_a_refused_call_comes_back_a_moment_after_the_slot_is_free():
    after = _advice().after((_demand("a"),), "key", 1, 100.0, held_for=4.0)
    assert after is not None
    assert 6.0 < after < 7.0


def test_calls_that_one_hold_kept_out_come_back_one_after_the_other():
    advice = _advice()
    moments = []
    for number in range(3):
        now = 100.0 + number
        after = advice.after((_demand("a"),), "key", 1, now, held_for=4.0 + number)
        assert after is not None
        moments.append(now + after)
    assert moments[1] - moments[0] > 10.0
    assert moments[2] - moments[1] > 10.0


def test_calls_of_other_keys_do_not_wait_for_each_other():
    advice = _advice()
    for number in range(MAX_KEYS + 10):
        demands = (Demand(f"key {number}", 1, name="a"),)
        after = advice.after(demands, demands[0].key, 1, 100.0, held_for=4.0)
        assert after is not None
        assert after < 7.0


def test_the_advice_to_many_refused_calls_is_bounded():
    advice = _advice()
    for _ in range(100):
        after = advice.after((_demand("a"),), "key", 1, 100.0, held_for=4.0)
        assert after is not None
        assert after < 60.0


def test_there_is_no_advice_without_a_mean_or_on_a_paused_key():
    assert _advice().after((_demand("b"),), "key", 1, 100.0) is None
    assert _advice().after((_demand("a"),), "key", 0, 100.0) is None


class _Simulation:
    """Calls that try again as they are advised, until each has had its slot; in simulated time."""

    def __init__(self, seed: int, load: float, calls: int) -> None:
        self._random = random.Random(seed)
        self._clock = FakeClock()
        self._limiter = SyncLimiter(MemoryStore(clock=self._clock))
        self._limit = ConcurrencyLimit(
            LIMIT_BY.constant("simulated"),
            on_conflict=ConflictResolution.CANCEL,
            name=f"simulated by {seed} {load}",
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._free_at = 0.0
        self.errors: list[float] = []
        """Of each first advice, relative to the time after which the slot was free."""
        self.succeeded: list[bool] = []
        """Of each first retry."""
        at = self._clock()
        for _ in range(calls):
            at += self._random.expovariate(load / HOLD)
            self._at(at, lambda: self._try(tries=0))
        while self._events:
            when, _, action = heapq.heappop(self._events)
            self._clock.advance(max(0.0, when - self._clock()))
            action()

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, self._random.getrandbits(60), action))

    def _try(self, tries: int) -> None:
        now = self._clock()
        try:
            lease = self._limiter.acquire(self._limit)
        except LimitReached as refused:
            if tries == 1:
                self.succeeded.append(False)
            after = refused.retry_after
            if after is None:  # the first hold is not over
                after = HOLD
            elif tries == 0:
                left = self._free_at - now
                self.errors.append(abs(after - left) / left)
            self._at(now + after, lambda: self._try(tries + 1))
        else:
            if tries == 1:
                self.succeeded.append(True)
            held = HOLD * self._random.uniform(0.98, 1.02)
            self._free_at = now + held
            self._at(self._free_at, lease.release)


@pytest.mark.parametrize("load", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_call_that_tries_again_as_advised_mostly_succeeds_at_once(seed, load):
    """Constant holds, one slot: the error is at most 30 %, and 4 of 5 first retries succeed."""
    simulated = _Simulation(seed, load, calls=3000)
    error = statistics.median(simulated.errors)
    success = statistics.mean(simulated.succeeded)
    assert error <= 0.3
    assert success >= 0.8


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def limit() -> ConcurrencyLimit:
    """Its name is used by no other test."""
    return ConcurrencyLimit(LIMIT_BY.constant("k"), name=f"measured {next(_numbers)}")


async def test_a_refused_call_learns_when_to_try_again(limiter, store, clock, limit):
    """From holds of this process; and WaitTimeout and QueueFull say it, too."""
    cancel = replace(limit, on_conflict=ConflictResolution.CANCEL)
    async with limiter.hold(limit):
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire(cancel)
        assert refusal.value.retry_after is None
        clock.advance(10)
    lease = await limiter.acquire(limit)
    async with lease:
        clock.advance(4)
        with pytest.raises(LimitReached) as refusal:
            await limiter.acquire(cancel)
        assert 6 < refusal.value.retry_after < 7
        with pytest.raises(QueueFull) as full:
            await limiter.acquire(replace(limit, max_waiting=0))
        assert full.value.retry_after > 6
        with pytest.raises(WaitTimeout) as late:
            await limiter.acquire(limit, timeout=0)
        assert late.value.retry_after > 0
    await limiter.pause("k")
    with pytest.raises(LimitReached) as refusal:
        await limiter.acquire(cancel)
    assert refusal.value.retry_after is None


def test_a_thread_learns_it_too(store, clock, limit):
    limiter = SyncLimiter(store)
    limit = replace(limit, on_conflict=ConflictResolution.CANCEL)
    with limiter.hold(limit):
        clock.advance(10)
    with limiter.hold(limit), pytest.raises(LimitReached) as refusal:
        limiter.acquire(limit)
    assert 10 < refusal.value.retry_after < 11


async def test_a_lost_lease_is_no_hold(limiter, clock, limit):
    async with limiter.hold(replace(limit, on_lost="warn")) as lease:
        await limiter.evict(lease.id)
    assert hold_times.of(limit.name) is None


async def test_short_holds_are_measured_now_and_then(limiter, clock, limit):
    """Often enough to notice that they have become longer."""
    for _ in range(100):
        async with limiter.hold(limit):
            pass
    assert hold_times.of(limit.name) == (pytest.approx(7, abs=3), 0.0, 0.0)
    for _ in range(30):
        async with limiter.hold(limit):
            clock.advance(1)
    assert _mean(hold_times, limit.name) > 0.5


async def test_a_hand_off_is_measured(limiter, clock, limit):

    async def hold() -> None:
        async with limiter.hold(limit):
            clock.advance(3)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(hold)
    assert hold_times.of(limit.name) == (5, pytest.approx(3.0), pytest.approx(0.0))


def test_the_holds_of_jobs_are_measured(store, clock, limit):
    gate = SyncJobGate(store, "queue", lambda _: True)
    cancel = replace(limit, on_conflict=ConflictResolution.CANCEL)

    def admit(ticket: str) -> SyncLease:
        lease = gate.admit(Job(ticket, cancel, ArgumentView({}, "work")))
        assert isinstance(lease, SyncLease)
        return lease

    with admit("first"):
        clock.advance(10)
    with admit("second"):
        clock.advance(4)
        with pytest.raises(LimitReached) as refusal:
            admit("third")
    assert 6 < refusal.value.retry_after < 7
    gate.close()
