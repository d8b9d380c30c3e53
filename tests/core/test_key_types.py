"""Which values may stand in a key, and how: a closed list, and what says its key itself."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import json
import numbers
import pathlib
import pickle
import sys
import threading
import types
import unittest.mock
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, Secret, SecretBytes, SecretStr

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    SyncLimiter,
    register_key_type,
)

KEYS = SyncLimiter()
LIMIT = ConcurrencyLimit("value")
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
UTC, D = datetime.UTC, decimal.Decimal
BERLIN, PARIS = zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")


def key(value: object) -> str:
    return KEYS.key_for(LIMIT, {"value": value})


# -- what users pass, and the law: the same key if and only if they print the same -----------------


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


class Masked(BaseModel):
    user: str
    key: SecretStr


@dataclasses.dataclass
class Box:
    x: object


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


def same(*values: object) -> bool:
    return len({key(value) for value in values}) == 1


def apart(*values: object) -> bool:
    return len({key(value) for value in values}) == len(values)


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


def law(value: Any) -> object:
    """Say by what a value goes: the rules of docs/keys.md, written once more, another way."""
    if value is None or isinstance(value, bool):
        return "constant", value
    if isinstance(value, SecretStr):
        return "secret", law(value.get_secret_value())
    if isinstance(value, int | float) and not isinstance(value, str):
        base = int if isinstance(value, int) else float
        return "number", repr(base(value))
    if isinstance(value, tuple | list):
        return "array", tuple(map(law, value))
    if isinstance(value, set):
        return "set", tuple(sorted((law(item) for item in value), key=repr))
    if isinstance(value, dict):
        return "object", frozenset((law(name)[1], law(member)) for name, member in value.items())
    if isinstance(value, Box):
        return "object", frozenset([("x", law(value.x))])
    if isinstance(value, str):
        return "text", "".join(value)
    if isinstance(value, decimal.Decimal):
        return "text", str(decimal.Decimal(value))
    if isinstance(value, enum.Enum):
        return "text", f"{type(value).__name__}.{value.name}"
    return "text", str(value)


def law_at_the_top(value: object) -> object:
    kind, text = law(value)
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
    kind, text = law(value)
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


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        SecretStr,
        lambda text: SecretBytes(text.encode()),
        Secret[str],
        lambda text: [SecretStr(text)],
        lambda text: {"key": SecretStr(text)},
        lambda text: Box(SecretStr(text)),
        lambda text: Masked(user="u", key=text),
    ],
)
def test_a_secret_enters_by_a_digest_wherever_it_stands(wrap):
    one, other = key(wrap("hunter2")), key(wrap("hunter3"))
    assert one != other
    assert one == key(wrap("hunter2"))
    assert "hunter" not in one
    assert "%2A" not in one


def test_a_secret_is_reached_by_a_path_and_not_by_the_message_of_an_error():
    limit = ConcurrencyLimit("model.key")
    found = KEYS.key_for(limit, {"model": Masked(user="u", key=SecretStr("hunter2"))})
    assert found.startswith("model.key=!secret:")
    with pytest.raises(KeyDerivationError) as refusal:
        key({SecretStr("hunter2"): 1})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [f"{SecretStr('hunter2')}:gold", f"tenant of {object()}"],
    ids=["masked", "with an address"],
)
def test_text_for_people_is_refused_from_a_strategy(text):
    with pytest.raises(KeyDerivationError, match=r"what LIMIT_BY\.fn.* is text for people"):
        KEYS.key_for(ConcurrencyLimit(LIMIT_BY.fn(lambda call: text)))


def test_text_that_only_looks_a_little_like_that_is_taken():
    for text in ("4111 **** **** 1111", "meet at 0x", "a at 0xbeef b"):
        assert KEYS.key_for(ConcurrencyLimit(LIMIT_BY.fn(lambda call, text=text: text)))


# -- what is refused -------------------------------------------------------------------------------


class Nameless:
    pass


class Printable:
    def __str__(self) -> str:
        return "printable"


class Shortened:
    """As a frame or an array: its text leaves out the middle."""

    def __init__(self, *items: int) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"Shortened({self.items[0]} ... {self.items[-1]})"


class Nanoseconds(datetime.datetime):
    """As the timestamps of a library that is more exact than `datetime`."""

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return super().isoformat(sep, timespec) + "000"


class Longer(datetime.timedelta):
    def __str__(self) -> str:
        return "long"


class Proxy:
    """As the lazy objects of web frameworks: it claims to be of the class of what it stands for."""

    __class__ = property(lambda self: str)


class Loose(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    x: Any = None


REFUSED = [
    Nameless(),
    object(),
    Printable(),
    Shortened(1, 2, 3),
    Nanoseconds(2024, 1, 1),
    Longer(1),
    Proxy(),
    unittest.mock.Mock(),
    len,
    lambda: None,
    Nameless,
    (number for number in [1]),
    bytearray(b"a"),
    memoryview(b"a"),
    complex(1, 2),
    slice(1, 2),
    {"a": 1}.keys(),
    ...,
    datetime.time(12, tzinfo=BERLIN),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}, Box, lambda x: Loose(x=x), Secret]
)
def test_what_no_text_is_sure_to_identify_is_refused(wrap, value):
    with pytest.raises(
        KeyDerivationError, match=rf"argument 'value' is a .*{type(value).__name__}"
    ):
        key(wrap(value))


def test_the_refusal_says_the_three_ways_out():
    with pytest.raises(KeyDerivationError) as refusal:
        key([Shortened(1, 2)])
    message = str(refusal.value)
    assert message.startswith("something in argument 'value' is a ")
    assert "test_key_types.Shortened" in message
    for way in ("__limit_key__()", "register_key_type(Shortened", "dotted path"):
        assert way in message


def test_nesting_without_an_end_is_refused():
    endless: list[Any] = []
    endless.append({"a": endless})
    deep = functools.reduce(lambda inner, _: [inner], range(10_000), [])
    for value in (endless, deep):
        with pytest.raises(KeyDerivationError, match="contains itself, or is nested too deeply"):
            key(value)


class Whole:
    """As a whole number of another library, numpy's for one."""

    def __index__(self) -> int:
        return 42


class WithUnit:
    """As numpy's `timedelta64`, which claims to be a whole number and is none."""

    def __index__(self) -> int:
        raise TypeError


class Exact(float):
    """As numpy's `float64`."""

    def __str__(self) -> str:
        return "a float"

    __repr__ = __str__


def test_a_number_of_another_library_is_one():
    for kind in (Whole, WithUnit):
        numbers.Integral.register(kind)
    assert same(Whole(), 42)
    assert same([Whole()], [42])
    assert same([Exact(1.5)], [1.5])
    with pytest.raises(KeyDerivationError, match=r"is a .*WithUnit"):
        key(WithUnit())


def test_what_a_dict_stores_counts_and_not_what_it_shows():
    class MultiDict(dict):
        def __getitem__(self, name: str) -> Any:
            return super().__getitem__(name)[0]

    assert apart(MultiDict(a=[1, 2]), MultiDict(a=[1, 3]))


# -- what says its key itself ----------------------------------------------------------------------


class Customer:
    def __init__(self, name: Any) -> None:
        self.name = name

    def __limit_key__(self) -> str:
        return self.name


class BigCustomer(Customer):
    pass


class Renamed(BaseModel):
    id: str

    def __limit_key__(self) -> str:
        return f"model {self.id}"


class OwnText(str):
    __slots__ = ()

    def __limit_key__(self) -> str:
        return self.lower()


def test_an_object_may_say_its_key_itself():
    assert same(Customer("a b"), BigCustomer("a b"), "a b")
    assert same([Customer("a")], ["a"])
    assert same({Customer("a"): 1}, {"a": 1})
    assert same(Renamed(id="7"), "model 7")
    assert same(OwnText("A"), "a")
    assert apart(Customer("a"), Customer("b"))


@pytest.mark.parametrize("wrong", [7, None, b"a", ["a"]])
def test_what_an_object_says_of_itself_has_to_be_text(wrong):
    with pytest.raises(KeyDerivationError, match=r"the __limit_key__\(\) of .* has to be text"):
        key(Customer(wrong))


def test_text_for_people_is_no_key_of_an_object():
    with pytest.raises(KeyDerivationError, match="text for people"):
        key(Customer(repr(Nameless())))


@pytest.fixture
def fresh() -> type:
    """A class that nobody has registered."""

    class ObjectId:
        def __init__(self, text: str) -> None:
            self.text = text

        def __str__(self) -> str:
            return self.text

    return ObjectId


def test_a_registered_type_goes_by_the_text_that_was_registered(fresh):
    with pytest.raises(KeyDerivationError):
        key(fresh("a"))
    register_key_type(fresh, str)
    assert same(fresh("a"), "a")
    assert same([{fresh("a"): fresh("b")}], [{"a": "b"}])
    assert apart(fresh("a"), fresh("b"))
    assert limiter_core.register_key_type is register_key_type


def test_a_subclass_goes_by_the_nearest_class_that_says_something(fresh):
    class Child(fresh):
        pass

    class Own(fresh):
        def __limit_key__(self) -> str:
            return "own"

    class Registered(Own):
        pass

    register_key_type(fresh, lambda value: f"base {value}")
    register_key_type(Registered, lambda value: f"registered {value}")
    assert same(Child("a"), "base a")
    assert same(Own("a"), "own")
    assert same(Registered("a"), "registered a")


def test_a_subclass_of_a_built_in_type_may_be_registered():
    class Exact(datetime.timedelta):
        def __str__(self) -> str:
            return "exact"

    register_key_type(Exact, lambda value: f"exactly {value.total_seconds()}")
    assert same(Exact(seconds=1), "exactly 1.0")
    assert same(datetime.timedelta(seconds=1), "0:00:01")


def test_to_register_the_same_again_changes_nothing(fresh):
    def defined_again() -> Any:
        def text(value: Any) -> str:
            return value.text

        return text

    register_key_type(fresh, defined_again())
    register_key_type(fresh, defined_again())
    assert same(fresh("a"), "a")
    with pytest.raises(ConfigurationError, match="would change their keys"):
        register_key_type(fresh, str)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("Customer", str, "needs a class, got 'Customer'"),
        (Nameless(), str, "needs a class"),
        (list[int], str, "needs a class"),
        (Nameless, "id", "needs a function"),
        (Nameless, None, "needs a function"),
        (Nameless, str, "has its address in it"),
        (Nameless, repr, "has its address in it"),
        (Printable, repr, "has its address in it"),
        *[
            (kind, lambda value: "x", f"how a {kind.__name__} stands in a key is fixed")
            for kind in (
                object, type, bool, type(None), str, int, float, uuid.UUID, dict, list, set,
                enum.Enum, BaseModel, SecretStr, datetime.datetime, pathlib.PurePath,
            )
        ],
    ],
)  # fmt: skip
def test_a_wrong_registration_is_refused(kind, text, message):
    with pytest.raises(ConfigurationError) as refusal:
        register_key_type(kind, text)
    assert message in str(refusal.value)


def test_a_registered_function_that_returns_no_text_is_told(fresh):
    register_key_type(fresh, lambda value: 7)
    with pytest.raises(KeyDerivationError, match="the text registered for argument 'value' has to"):
        key(fresh("a"))


def test_what_says_a_key_may_raise(fresh):
    def broken(value: object) -> str:
        raise LookupError("no such customer")

    register_key_type(fresh, broken)
    with pytest.raises(LookupError, match="no such customer"):
        key(fresh("a"))


def test_types_may_be_registered_while_keys_are_made():
    kinds = [type(f"Kind{number}", (), {}) for number in range(200)]
    failed: list[BaseException] = []
    started = threading.Barrier(4)

    def register(mine: list[type]) -> None:
        started.wait(10)
        try:
            for kind in mine:
                register_key_type(kind, lambda value: type(value).__name__)
                assert same(kind(), kind.__name__)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=register, args=(kinds[place::4],)) for place in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    assert all(same(kind(), kind.__name__) for kind in kinds)
