"""Markers of attempts that have finished: they expire, and are members of a set in the store."""

from __future__ import annotations

import pytest

from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._expiring_set import ExpiringSet

from ._parts import Parts


def test_a_marker_tells_how_long_ago_the_attempt_finished(parts: Parts) -> None:
    assert parts.markers.age("one") is None
    parts.markers.set("one")
    parts.clock.advance(5.0)
    assert parts.markers.age("one") == pytest.approx(5.0, abs=0.01)
    assert parts.markers.age("other") is None
    parts.clock.advance(56.0)
    assert parts.markers.age("one") is None, "it is kept for 60 seconds"


def test_a_marker_is_removed_for_a_task_that_is_sent_again(parts: Parts) -> None:
    parts.markers.clear("one")
    parts.markers.set("one")
    parts.markers.clear("one")
    assert parts.markers.age("one") is None


def test_an_attempt_that_was_taken_has_finished_when_that_is_noted(parts: Parts) -> None:
    assert parts.markers.set_once("one", "a message")
    assert parts.markers.set_once("one", "a message")
    assert not parts.markers.set_once("one", "another")
    parts.clock.advance(50.0)
    parts.markers.set("one")
    assert parts.markers.age("one") == pytest.approx(0.0, abs=0.01)
    assert not parts.markers.set_once("one", "a message")


def test_ids_of_any_length_are_told_apart(parts: Parts) -> None:
    parts.markers.set("x" * 10_000)
    assert parts.markers.age("x" * 10_000) is not None
    assert parts.markers.age("x" * 10_001) is None


def test_for_no_time_nothing_is_noted(parts: Parts) -> None:
    markers = CompletionMarkers(parts.tickets, "celery", 0.0)
    markers.set("one")
    markers.clear("one")
    assert markers.age("one") is None
    assert parts.tickets.inspect("celery:over").in_use == 0


def test_a_marker_that_is_set_again_is_kept_anew(parts: Parts) -> None:
    parts.markers.set("one")
    parts.clock.advance(50.0)
    parts.markers.set("one")
    assert parts.markers.age("one") == pytest.approx(0.0, abs=0.01)
    parts.clock.advance(50.0)
    assert parts.markers.age("one") == pytest.approx(50.0, abs=0.01)


def test_a_set_lists_its_members(parts: Parts) -> None:
    members = ExpiringSet(parts.tickets, "set", 60.0)
    members.add("a")
    parts.clock.advance(2.0)
    members.add("b")
    assert members.ages() == {"a": pytest.approx(2.0, abs=0.01), "b": pytest.approx(0.0, abs=0.01)}
    members.remove("a")
    assert list(members.ages()) == ["b"]
