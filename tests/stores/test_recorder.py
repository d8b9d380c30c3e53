"""`OverlapRecorder`: sees what overlaps, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from limiter_core.testing import FakeClock, OverlapRecorder


@pytest.fixture
def clock():
    return FakeClock(start=100)


@pytest.fixture
def recorder(clock):
    return OverlapRecorder(clock=clock)


def test_nothing_was_held(recorder):
    assert recorder.peak("key") == 0
    assert recorder.intervals("key") == ()
    assert recorder.violations() == ()
    recorder.assert_within("key", 0)


def test_one_after_the_other_is_no_overlap(recorder):
    """Also when both happen at the same time on the clock."""
    for _ in range(3):
        with recorder.holding("key", limit=1):
            pass
    assert recorder.peak("key") == 1
    assert recorder.violations() == ()
    recorder.assert_within("key", 1)


def test_the_peak_is_the_sum_of_costs_at_the_worst_moment(recorder):
    with recorder.holding("key", 2):
        with recorder.holding("key", 3):
            pass
        with recorder.holding("key", 1):
            pass
    with recorder.holding("key", 4):
        pass
    assert recorder.peak("key") == 5
    recorder.assert_within("key", 5)
    with pytest.raises(AssertionError):
        recorder.assert_within("key", 4)


def test_keys_are_apart(recorder):
    with recorder.holding("a"), recorder.holding("b", limit=1):
        pass
    assert (recorder.peak("a"), recorder.peak("b")) == (1, 1)
    assert recorder.violations() == ()


def test_intervals_have_names_and_times(recorder, clock):
    with recorder.holding("key", 2, limit=5, who="ann"):
        clock.advance(1)
        with recorder.holding("key", who="bob") as bobs:
            clock.advance(1)
            assert bobs.end is None
    ann, bob = recorder.intervals("key")
    assert (ann.key, ann.who, ann.cost, ann.limit, ann.begin, ann.end) == (
        "key",
        "ann",
        2,
        5,
        100,
        102,
    )
    assert (bob.who, bob.cost, bob.limit, bob.begin, bob.end) == ("bob", 1, None, 101, 102)
    assert bob is bobs


def test_a_block_that_raises_has_ended_too(recorder):
    with pytest.raises(KeyError), recorder.holding("key"):
        raise KeyError
    assert recorder.intervals("key")[0].end == 100
    with recorder.holding("key", limit=1):
        pass
    assert recorder.violations() == ()


def test_a_holder_above_its_own_limit_is_a_violation(recorder, clock):
    """S12: each is judged by the number it declares itself."""
    with recorder.holding("key", limit=3, who="ann"):
        clock.advance(1)
        with recorder.holding("key", limit=1, who="bob"):
            pass
        with recorder.holding("key", limit=2, who="cid"):
            pass
    [violation] = recorder.violations()
    assert (violation.key, violation.at, violation.in_use, violation.limit) == ("key", 101, 2, 1)
    assert [holder.who for holder in violation.holders] == ["ann", "bob"]


def test_the_message_shows_the_holders_at_the_worst_moment(recorder, clock):
    with recorder.holding("key", who="early"):
        pass
    with recorder.holding("key", 2, who="ann"):
        clock.advance(1)
        with recorder.holding("key", who="bob"):
            clock.advance(1)
            with pytest.raises(AssertionError) as raised:
                recorder.assert_within("key", 2)
    assert str(raised.value).splitlines() == [
        "'key': 3 slots in use at 101.000000, limit 2:",
        "  ann: cost 2, from 100.000000 still holding",
        "  bob: cost 1, from 101.000000 still holding",
    ]
    with pytest.raises(AssertionError, match=r"bob: cost 1, from 101\.000000 until 102\.000000"):
        recorder.assert_within("key", 2)


def test_holders_without_a_name_are_told_apart(recorder):
    with recorder.holding("key"), recorder.holding("key"):
        pass
    first, second = recorder.intervals("key")
    assert first.who != second.who
    assert threading.current_thread().name in first.who


def test_threads_are_seen_together():
    recorder = OverlapRecorder()
    together = threading.Barrier(8)

    def hold(_):
        with recorder.holding("key", limit=8):
            together.wait(timeout=30)
            together.wait(timeout=30)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, range(8)))
    assert recorder.peak("key") == 8
    assert recorder.violations() == ()
    assert all(interval.begin <= interval.end for interval in recorder.intervals("key"))
