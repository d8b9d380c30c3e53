"""`ConcurrencyLimit`: every field, what each refuses, and what makes it a value."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import sys
from datetime import timedelta

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, ConflictResolution

from ._tools import shown


def tenant_limit(args) -> int:
    return 5 if args["tenant"] == "big" else 1


FULL = {
    "by": "tenant",
    "max_concurrent": tenant_limit,
    "scope": "billing",
    "on_conflict": ConflictResolution.PRIORITY,
    "priority": 7,
    "cost": 2,
    "fair_by": "user",
    "max_waiting": 100,
    "timeout": 10,
    "lease": 20,
    "max_hold": 60,
    "on_lost": "warn",
    "name": "billing",
}


def test_the_defaults():
    limit = ConcurrencyLimit("a")
    assert limit.max_concurrent == limit.cost == 1
    assert limit.on_conflict is ConflictResolution.QUEUE
    assert limit.priority == 0
    assert (limit.lease, limit.on_lost) == (30.0, "cancel")
    unset = (limit.scope, limit.fair_by, limit.max_waiting, limit.timeout, limit.max_hold)
    assert (*unset, limit.name) == (None,) * 6


def test_every_option_is_kept():
    limit = ConcurrencyLimit(**FULL)
    assert limit.by == LIMIT_BY.fn_argument("tenant")
    assert limit.fair_by == LIMIT_BY.fn_argument("user")
    kept = {name: getattr(limit, name) for name in FULL if name not in ("by", "fair_by")}
    assert kept == {name: FULL[name] for name in kept}


def test_the_strategy_and_the_number_may_be_positional_and_nothing_else():
    assert ConcurrencyLimit("a", 5) == ConcurrencyLimit(by="a", max_concurrent=5)
    with pytest.raises(ConfigurationError):
        ConcurrencyLimit("a", 5, "scope")


@pytest.mark.parametrize("name", ["timeout", "lease", "max_hold"])
def test_a_duration_is_seconds_or_a_timedelta(name):
    limit = ConcurrencyLimit("a", **{name: timedelta(minutes=2)})
    assert getattr(limit, name) == 120.0
    assert limit == ConcurrencyLimit("a", **{name: 120})


@pytest.mark.parametrize("resolution", ConflictResolution)
@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
def test_a_conflict_resolution_goes_by_its_name_in_any_case(resolution, spelled):
    limit = ConcurrencyLimit("a", on_conflict=spelled(resolution.name))
    assert limit.on_conflict is resolution
    assert limit == ConcurrencyLimit("a", on_conflict=resolution)


def test_a_limit_is_frozen():
    limit = ConcurrencyLimit("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        limit.max_concurrent = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        del limit.max_concurrent


def test_equal_limits_are_the_same_limit():
    one, other = ConcurrencyLimit(**FULL), ConcurrencyLimit(**FULL)
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"by": "user"},
        {"max_concurrent": 9},
        {"scope": None},
        {"on_conflict": ConflictResolution.QUEUE},
        {"priority": 8},
        {"cost": 1},
        {"fair_by": None},
        {"max_waiting": 101},
        {"timeout": 11},
        {"lease": 21},
        {"max_hold": 61},
        {"on_lost": "cancel"},
        {"name": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_limits_that_differ_in_one_field_differ(change):
    limit = ConcurrencyLimit(**FULL)
    changed = ConcurrencyLimit(**{**FULL, **change})
    assert changed != limit
    assert dataclasses.replace(limit, **change) == changed


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]
)
def test_a_limit_survives_copying_and_pickling(clone):
    limit = ConcurrencyLimit(**FULL)
    twin = clone(limit)
    assert twin == limit
    assert hash(twin) == hash(limit)


def test_a_limit_by_function_name_survives_pickling():
    limit = ConcurrencyLimit(LIMIT_BY.fn_name & LIMIT_BY.fn_argument("a"), max_concurrent=2)
    assert pickle.loads(pickle.dumps(limit)) == limit


def test_a_limit_shows_its_fields():
    text = repr(ConcurrencyLimit("tenant", max_concurrent=3))
    assert "ConcurrencyLimit(" in text
    assert "max_concurrent=3" in text
    assert "LIMIT_BY.fn_argument('tenant')" in text


WRONG = [
    ("max_concurrent", [-1, 1.5, 2.0, "3", None, True, math.nan, math.inf, [3]]),
    ("cost", [0, -1, 1.5, "1", None, False, [1]]),
    ("priority", ["high", 1.5, None, True, 2**31, -(2**31)]),
    ("max_waiting", [-1, 1.5, "10", True, math.inf]),
    ("timeout", [-1, "5", math.inf, math.nan, True, timedelta(seconds=-1), [5]]),
    ("lease", [0, -1, "30", None, math.inf, math.nan, True, timedelta(0)]),
    ("max_hold", [0, -1, "30", math.inf, math.nan, True, timedelta(0)]),
    ("on_lost", ["ignore", None, True, 0, print, []]),
    ("on_conflict", ["wait", "", "cancel ", None, 1, b"cancel", ConflictResolution]),
    ("scope", ["", " ", 5, b"a"]),
    ("fair_by", [5, "", print, object()]),
    ("name", ["", " ", 5, b"a", "a\nb", "\x1b[1m", "\u202e", "\ud800", print]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG for value in values],
    ids=lambda given: shown(given)[:30],
)
def test_a_wrong_value_is_refused_where_it_is_written(name, value):
    with pytest.raises(ConfigurationError) as refusal:
        ConcurrencyLimit("a", **{name: value})
    message = str(refusal.value)
    assert name == "fair_by" or name in message
    assert repr(value) in message or "non-empty text" in message
    assert isinstance(refusal.value, ValueError)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrent": sys.maxsize}, "max_concurrent must be at most 1,000,000,000,000,000"),
        ({"max_waiting": 10**16}, "max_waiting must be at most 1,000,000,000,000,000"),
        ({"max_concurrent": -1}, "max_concurrent must be at least 0, got -1"),
        ({"max_concurrent": "3"}, "max_concurrent must be a whole number, got '3'"),
        ({"cost": 0}, "cost must be at least 1, got 0"),
        ({"on_conflict": "wait"}, r"one of QUEUE, PRIORITY, CANCEL, CANCEL_RUNNING, KEEP_LATEST"),
        ({"on_lost": "ignore"}, '"cancel" or "warn"'),
        ({"timeout": "5"}, "timeout must be seconds or a timedelta"),
        ({"lease": 0}, "lease must be more than zero"),
        ({"name": "a\n"}, "name must be printable text, and not blank, got 'a\\\\n'"),
        ({"name": "a" * 101}, "name must have at most 100 characters, got 101: 'aaa"),
    ],
)
def test_the_message_says_what_was_given_and_what_is_allowed(options, message):
    with pytest.raises(ConfigurationError, match=message):
        ConcurrencyLimit("a", **options)


def test_an_unknown_option_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigurationError, match=r"'max_concurent'.*there are: by, max_concurrent"):
        ConcurrencyLimit("a", max_concurent=3)


def test_all_wrong_values_are_reported_at_once():
    with pytest.raises(ConfigurationError) as refusal:
        ConcurrencyLimit("a", max_concurrent=-1, cost=0)
    assert "max_concurrent" in str(refusal.value)
    assert "cost" in str(refusal.value)


def test_a_cost_above_the_limit_is_refused():
    with pytest.raises(ConfigurationError, match="cost 4 is above the limit of 3"):
        ConcurrencyLimit("a", max_concurrent=3, cost=4)


def test_a_limit_of_zero_admits_nobody_and_bears_any_cost():
    assert ConcurrencyLimit("a", max_concurrent=0, cost=4).max_concurrent == 0


def test_the_edges_that_are_allowed():
    limit = ConcurrencyLimit("a", max_waiting=0, timeout=0, priority=2**31 - 1)
    assert (limit.max_waiting, limit.timeout) == (0, 0.0)
    assert ConcurrencyLimit("a", priority=-(2**31) + 1).priority == -(2**31) + 1


def test_there_are_five_resolutions():
    names = ["QUEUE", "PRIORITY", "CANCEL", "CANCEL_RUNNING", "KEEP_LATEST"]
    assert [member.name for member in ConflictResolution] == names
