"""`FakeClock`: stands still, goes forward when told, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from limiter_core.testing import FakeClock


def test_it_stands_still():
    clock = FakeClock()
    assert clock() == clock()


def test_it_goes_forward_by_what_it_is_told():
    clock = FakeClock(start=100)
    assert clock.advance(0.25) == 100.25
    assert clock() == 100.25
    assert clock.advance(0) == 100.25


def test_it_begins_where_the_real_time_lies():
    """Row 20: fencing tokens, in microseconds, then have more than 50 bits."""
    assert FakeClock()() * 1_000_000 > 2**50


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_it_does_not_go_back(seconds):
    clock = FakeClock(start=100)
    with pytest.raises(ValueError, match=r"forward.*got"):
        clock.advance(seconds)
    assert clock() == 100


def test_no_advance_is_lost_between_threads():
    clock = FakeClock(start=0)

    def advance(_):
        for _ in range(1000):
            clock.advance(1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(advance, range(8)))
    assert clock() == 8000


def test_it_says_what_time_it_is():
    assert repr(FakeClock(start=5.5)) == "FakeClock(5.5)"
