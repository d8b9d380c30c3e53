"""Which values may stand in a key, and how: a closed list, and what says its key itself."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import pickle
import types
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import RootModel, SecretBytes, SecretStr

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    KeyDerivationError,
)

from ._key_values import (
    BERLIN,
    KEYS,
    PARIS,
    Box,
    apart,
    key,
    same,
)

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


UTC, D = datetime.UTC, decimal.Decimal


# -- what users pass, and the rule: the same key if and only if they print the same ----------------


class Plan(str, enum.Enum):  # noqa: UP042  (StrEnum is another class)
    GOLD = "gold"
    TIN = "tin"


class Tier(int, enum.Enum):
    A = 1
    B = 2


class Share(decimal.Decimal, enum.Enum):
    HALF = "0.5"


class Rate(float, enum.Enum):
    FAST = 1.5


class Holiday(datetime.date, enum.Enum):
    LEAP = 2024, 2, 29


class Pair(tuple, enum.Enum):  # noqa: SLOT001
    ONES = 1, 1


class Level(enum.IntEnum):
    LOW = 1


class Bits(enum.IntFlag):
    R = 1
    W = 2


class Right(enum.Flag):
    R = 1
    W = 2


class Mode(enum.StrEnum):
    GOLD = "gold"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

    def __str__(self) -> str:
        return "a color"


class Outer(enum.Enum):
    GOLD = Plan.GOLD


class Row(NamedTuple):
    x: object
    y: object


class UserId(int):
    def __str__(self) -> str:
        return "a user"


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "a name"


class DriversUuid(uuid.UUID):
    def __str__(self) -> str:
        return "a uuid"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Plan.GOLD, "gold"),
        (Mode.GOLD, "gold"),
        (Tier.A, "1"),
        (Level.LOW, 1),
        (Bits.R | Bits.W, 3),
        (Share.HALF, D("0.5")),
        (Rate.FAST, 1.5),
        (Holiday.LEAP, "2024-02-29"),
        (Pair.ONES, [1, 1]),
        (Color.RED, "Color.RED"),
        (Outer.GOLD, "Outer.GOLD"),
        (Right.R | Right.W, "Right.R|W"),
        (UserId(7), "7"),
        (Name("a"), "a"),
        (DriversUuid(ID.hex), str(ID)),
        (fractions.Fraction(2, 6), "1/3"),
        (fractions.Fraction(4, 2), 2),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (ipaddress.ip_address("::1"), "::1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
        (range(3), "range(0, 3)"),
        (datetime.time(12, tzinfo=UTC), "12:00:00+00:00"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (D("1E+2"), "1E+2"),
        (D("NaN"), "NaN"),
        (b"\xff", "b'\\xff'"),
        (pathlib.PureWindowsPath("a/b"), "a\\b"),
        (RootModel[int](7), 7),
        (RootModel[list[int]]([7]), [7]),
        (Row(1, "a"), (1, "a")),
        ({1: "a"}, {"1": "a"}),
        ({Plan.GOLD: Tier.A}, {"gold": 1}),
        ({Level.LOW: ID}, {"1": str(ID)}),
        (Box(Plan.GOLD), {"x": "gold"}),
    ],
    ids=repr,
)
def test_a_value_shares_the_key_of_what_it_prints(value, text):
    assert key(value) == key(text)


@pytest.mark.parametrize(
    "values",
    [
        [1, 1.0, True, D("1.00"), D("1.0000"), "1 ", [1], {1}, {"1": 1}],
        [0, 0.0, -0.0, False, None, "", D("0.00"), D("-0")],
        [D("100"), D("1E+2"), D("100.0")],
        [[1], ["1"], [[1]], {1}, {"1"}, ["1", ""]],
        [Color.RED, Color.BLUE, "red"],
        [Right.R, Right.W, Right.R | Right.W, Right(0)],
        [[True], [1], ["True"], [None], ["None"]],
        ["😀", "\ud83d\ude00"],
        [["😀"], ["\ud83d\ude00"], [r"\ud83d\ude00"]],
        [["nan"], [float("nan")]],
        [datetime.datetime(2024, 6, 1, tzinfo=zone) for zone in (None, UTC, BERLIN)],
        [datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (0, 1)],
        [SecretStr("a"), SecretStr("b"), SecretStr(""), "a", "**********", SecretBytes(b"a")],
    ],
    ids=repr,
)
def test_values_that_print_differently_have_keys_of_their_own(values):
    assert apart(*values)


def test_time_zones_count_by_their_offset_as_they_print():
    noon = datetime.datetime(2024, 6, 1, 12, tzinfo=BERLIN)
    assert same(noon, noon.replace(tzinfo=PARIS))  # both are +02:00
    assert apart(noon, noon.astimezone(UTC))  # the same moment, another text


TEXTS = st.text(max_size=4)


SCALARS = st.one_of(
    TEXTS,
    st.integers(-20, 20),
    st.floats(width=16),
    st.booleans(),
    st.none(),
    st.binary(max_size=2),
    st.decimals(allow_nan=False, min_value=-9, max_value=9, places=1),
    st.fractions(max_denominator=3),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, UTC, BERLIN])),
    st.timedeltas(),
    st.ip_addresses(),
    st.sampled_from([*Plan, *Tier, *Level, *Bits, *Share, *Rate]),
    st.sampled_from([*Color, *Right, Outer.GOLD]),
    TEXTS.map(SecretStr),
    TEXTS.map(Name),
    st.integers(-5, 5).map(UserId),
)


NAMES = st.one_of(TEXTS, st.integers(0, 3), st.sampled_from([*Plan, *Tier]))


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner, inner),
        st.dictionaries(NAMES, inner, max_size=2),
        st.sets(SCALARS, max_size=2),
        inner.map(Box),
        st.builds(Row, inner, inner),
    ),
    max_leaves=4,
)


def identity(value: Any) -> object:
    """Say by what a value goes: the rules of docs/reference/keys.md, written another way."""
    if value is None or isinstance(value, bool):
        return "constant", value
    if isinstance(value, SecretStr):
        return "secret", identity(value.get_secret_value())
    if isinstance(value, int | float) and not isinstance(value, str):
        base = int if isinstance(value, int) else float
        return "number", repr(base(value))
    if isinstance(value, tuple | list):
        return "array", tuple(map(identity, value))
    if isinstance(value, set):
        return "set", tuple(sorted((identity(item) for item in value), key=repr))
    if isinstance(value, dict):
        return "object", frozenset(
            (identity(name)[1], identity(member)) for name, member in value.items()
        )
    if isinstance(value, Box):
        return "object", frozenset([("x", identity(value.x))])
    if isinstance(value, str):
        return "text", "".join(value)
    if isinstance(value, decimal.Decimal):
        return "text", str(decimal.Decimal(value))
    if isinstance(value, enum.Enum):
        return "text", f"{type(value).__name__}.{value.name}"
    return "text", str(value)


def law_at_the_top(value: object) -> object:
    kind, text = identity(value)
    return ("text", text) if kind == "number" else (kind, text)


def key_or_none(value: object) -> str | None:
    try:
        return key(value)
    except KeyDerivationError as error:
        assert "print the same" in str(error)  # noqa: PT017
        return None


@given(one=VALUES, other=VALUES)
def test_two_values_share_a_key_if_and_only_if_they_print_the_same(one, other):
    keys = key_or_none(one), key_or_none(other)
    if None not in keys:
        assert (keys[0] == keys[1]) == (law_at_the_top(one) == law_at_the_top(other))


@given(value=VALUES)
def test_a_value_in_a_container_goes_by_the_same_rule_as_alone(value):
    if key_or_none(value) is None:
        return
    assert same([value], (value,))
    assert same({"x": value}, Box(value), types.MappingProxyType({"x": value}))
    kind, text = identity(value)
    if kind == "text":
        assert same([value], [text])
        assert same(value, text)


@given(value=VALUES)
def test_pickle_keeps_the_key(value):
    assert key_or_none(value) == key_or_none(pickle.loads(pickle.dumps(value)))


IN_JSON = st.recursive(
    st.one_of(
        TEXTS, st.integers(), st.floats(), st.none(), st.booleans(),
        st.sampled_from([*Plan, *Mode, *Tier, *Level, *Bits, *Rate]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner, inner),
        st.dictionaries(NAMES, inner, max_size=2),
    ),
    max_leaves=5,
)  # fmt: skip


@given(value=IN_JSON)
def test_what_a_queue_makes_of_a_value_in_json_has_the_same_key(value):
    if key_or_none(value) is not None:
        assert key(json.loads(json.dumps(value))) == key(value)


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x], Box, lambda x: {"k": x}, lambda x: {x}]
)
@pytest.mark.parametrize(("member", "value"), [(Plan.GOLD, "gold"), (Tier.A, 1), (Rate.FAST, 1.5)])
def test_a_member_of_an_enum_that_is_text_or_a_number_is_its_value(wrap, member, value):
    assert wrap(member) == wrap(value)
    assert same(wrap(member), wrap(value))


def test_a_member_of_an_enum_is_its_value_in_all_that_a_limit_is_given():
    by_member = ConcurrencyLimit(Plan.GOLD, Tier.B, scope=Plan.TIN, cost=Tier.A, priority=Tier.A)
    assert by_member == ConcurrencyLimit("gold", 2, scope="tin", cost=1, priority=1)
    assert KEYS.key_for(by_member, {"gold": 5}) == "tin/gold=5"
    assert KEYS.key_for(ConcurrencyLimit(LIMIT_BY.constant(Plan.GOLD))) == "gold"
    assert type(by_member.max_concurrent) is int
    with KEYS.hold(ConcurrencyLimit("plan"), {"plan": Plan.GOLD}):
        assert KEYS.try_acquire(ConcurrencyLimit("plan"), {"plan": "gold"}) is None
