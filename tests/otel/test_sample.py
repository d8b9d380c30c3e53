"""The sample that is measured where there is more than a process should pay for."""

from __future__ import annotations

import random

import pytest

from limiter_core.system_clock import system_clock
from limiter_otel import _sample
from limiter_otel._sample import PER_SECOND, Sample


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_sample, "system_clock", clock)
    monkeypatch.setattr(_sample, "jitter", random.Random(1))
    return clock


def taken(sample: Sample, clock: Clock, count: int) -> int:
    """Return how many of so many in one second are part of the sample."""
    number = 0
    for _ in range(count):
        number += sample.takes()
        clock.now += 1 / count
    clock.now = round(clock.now)
    return number


def test_few_are_all_part_of_it(clock: Clock) -> None:
    sample = Sample()
    assert [taken(sample, clock, PER_SECOND) for _ in range(3)] == [PER_SECOND] * 3


def test_of_many_it_is_a_bounded_part(clock: Clock) -> None:
    sample = Sample()
    first, *later = [taken(sample, clock, 20_000) for _ in range(5)]
    assert PER_SECOND <= first <= 2.5 * PER_SECOND
    assert all(0.6 * PER_SECOND <= number <= 1.5 * PER_SECOND for number in later)
    clock.now += 2
    assert taken(sample, clock, 10) == 10, "after a pause all are part of it again"


def test_long_and_short_ones_have_the_same_chance(clock: Clock) -> None:
    sample = Sample()
    longs = total = 0
    for _ in range(200):
        for number in range(1000):
            if sample.takes():
                total += 1
                longs += number % 10 == 0
        clock.now += 1
    assert 0.08 < longs / total < 0.12


def test_it_takes_the_time_of_the_process() -> None:
    assert _sample.system_clock is system_clock
