"""Values in keys: the same when they print the same, canonical JSON for the structured."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import types
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from limiter_core import ConcurrencyLimit, KeyDerivationError, SyncLimiter

KEYS = SyncLimiter()
LIMIT = ConcurrencyLimit("value")
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def key(value: object) -> str:
    return KEYS.key_for(LIMIT, {"value": value})


class Color(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    BIG = 42


class Plan(enum.StrEnum):
    GOLD = "gold"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Order(BaseModel):
    id: int
    tags: list[str] = []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"),
        (-1, "-1"),
        (ID, str(ID)),
        (1.5, "1.5"),
        (decimal.Decimal("1.50"), "1.50"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), "2024-02-29 12:00:00+00:00"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Size.BIG, "42"),
        (Plan.GOLD, "gold"),
        (Color.RED, "Color.RED"),
        (b"1", "b'1'"),
    ],
)
def test_a_value_shares_the_key_of_the_text_it_prints(value, text):
    assert key(value) == key(text)


@pytest.mark.parametrize("value", [None, True, False])
def test_a_singleton_is_not_its_text(value):
    assert key(value) != key(str(value))
    assert key(value) != key(f"!{value}")
    assert key(value) != key([value])


def test_look_alikes_are_told_apart():
    alike = ["1", 1.0, True, b"1", "True", "b'1", None, "None", "", [1], ["1"], "[1]", {"1": 1}]
    alike += ["{}", {}, [], "[]", {1}, [[1]], Color.RED, "RED", "1 ", " 1", "01"]
    assert len({key(value) for value in alike}) == len(alike)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, frozenset([2, 3, 1])),
        ([1, 2], (1, 2)),
        (Point(1, 2), {"y": 2, "x": 1}),
        (Order(id=7, tags=["a"]), {"id": 7, "tags": ["a"]}),
        ({"when": ID}, {"when": str(ID)}),
        ([Point(1, 2)], [{"x": 1, "y": 2}]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
    ],
)
def test_structured_values_meet_in_canonical_json(one, other):
    assert key(one) == key(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def typed(value: object) -> object:
    """Return the value with its types spelled out, so that True and 1 are not equal."""
    if isinstance(value, dict):
        return "dict", frozenset((name, typed(member)) for name, member in value.items())
    if isinstance(value, list):
        return "list", tuple(map(typed, value))
    return type(value).__name__, value


@given(one=JSON.filter(lambda value: isinstance(value, list | dict)), other=JSON)
def test_distinct_json_gives_distinct_keys(one, other):
    assert (key(one) == key(other)) == (typed(one) == typed(other))


@given(text=st.text(max_size=20))
def test_structured_values_never_meet_text(text):
    assert key(text) != key([text])
    assert key(f'!["{text}"]') != key([text])


def test_a_value_that_contains_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(KeyDerivationError, match="contains itself"):
        key(endless)


def test_dict_keys_that_print_the_same_are_refused():
    with pytest.raises(KeyDerivationError, match="two dict keys that print the same"):
        key({1: "a", "1": "b"})


@pytest.mark.parametrize("name", [None, True, (1, 2), SecretStr("a")])
def test_dict_keys_that_are_no_text_or_number_are_refused(name):
    with pytest.raises(KeyDerivationError, match=r"dict key that is a .* must be text or numbers"):
        key({name: 1})


def test_a_whole_number_too_large_to_print_is_refused_as_a_key():
    with pytest.raises(KeyDerivationError):
        key(10**5000)


def test_half_a_surrogate_pair_is_a_value_like_any_other():
    assert len({key("\ud800"), key("\udc00"), key("?")}) == 3
