"""Secrets have a key by digest, and values without a sure text have none."""

from __future__ import annotations

import dataclasses
import datetime
import fractions
import functools
import numbers
import unittest.mock
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    KeyDerivationError,
)

from ._key_values import (
    BERLIN,
    KEYS,
    Box,
    Exact,
    Masked,
    Nameless,
    Printable,
    apart,
    key,
    same,
)

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
    assert "test_key_refusals.Shortened" in message
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


@dataclasses.dataclass
class Late:
    given: int
    later: int = dataclasses.field(init=False)


class Order(BaseModel):
    given: int
    later: int


@pytest.mark.parametrize("value", [Late(1), Order.model_construct(given=1)])
def test_a_field_that_is_not_set_is_refused(value):
    with pytest.raises(KeyDerivationError, match="the field 'later' of"):
        key(value)
    with pytest.raises(KeyDerivationError, match="the field 'later' of"):
        key([value])
    value.later = 2
    assert key(value) == key({"given": 1, "later": 2})


@pytest.mark.parametrize("value", [fractions.Fraction(10**5000, 3), range(10**5000)])
def test_a_fraction_or_a_range_too_large_to_print_is_refused(value):
    with pytest.raises(KeyDerivationError, match="too large to print"):
        key(value)


@pytest.mark.parametrize("value", [True, 7])
def test_a_proxy_for_a_number_is_refused(value):
    """It has the methods of what it stands for, and nothing says whether that is True or 1."""

    class Proxy:
        __class__ = property(lambda self: type(value))  # type: ignore[assignment]

        def __index__(self) -> int:
            return int(value)

    with pytest.raises(KeyDerivationError, match="Proxy, which cannot stand in a key"):
        key(Proxy())
