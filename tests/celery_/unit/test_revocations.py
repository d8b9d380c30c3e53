"""Revokes that the store remembers, for workers that start later."""

from __future__ import annotations

import time

from limiter_celery._revocations import Revocations, have_in_common, stamps_of

from ._parts import Parts


def test_stamps_are_taken_as_celery_takes_them() -> None:
    assert stamps_of({"a": "x", "b": ["y", 1], "c": None}) == {"a": ["x"], "b": ["y", 1]}
    assert stamps_of(["a=x", "b=y"]) == {"a": ["x"], "b": ["y"]}
    assert stamps_of(None) == {}
    assert have_in_common({"a": ["x", "y"]}, {"a": ["y"], "b": ["x"]})
    assert not have_in_common({"a": ["x"]}, {"b": ["x"]})


def test_only_a_revoke_from_while_it_waited_counts(parts: Parts) -> None:
    Revocations(parts.tickets, "celery", 60.0).note("one")
    Revocations(parts.tickets, "celery", 60.0).note_stamps({"tenant": ["a"]})
    parts.clock.advance(5.0)
    later = Revocations(parts.tickets, "celery", 60.0)
    assert not later.cover("one", {}, 0.0), "it has not loaded it yet"
    later.load()
    now = time.time()
    assert later.cover("one", {}, now - 6.0)
    assert later.cover("other", {"tenant": ["b", "a"]}, now - 6.0)
    assert not later.cover("one", {"tenant": ["a"]}, now - 4.0), "it was sent again since"
    assert not later.cover("other", {"tenant": ["b"]}, now - 6.0)
    parts.clock.advance(60.0)
    later.load()
    assert not later.cover("one", {}, 0.0), "it is over"


def test_of_two_revokes_of_one_id_the_latest_counts(parts: Parts) -> None:
    Revocations(parts.tickets, "celery", 60.0).note("one")
    parts.clock.advance(5.0)  # meanwhile it was sent again
    Revocations(parts.tickets, "celery", 60.0).note("one")
    later = Revocations(parts.tickets, "celery", 60.0)
    later.load()
    assert later.cover("one", {}, time.time() - 4.0)
