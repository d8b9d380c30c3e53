"""The short way to the demand of a limit of which only the key depends on the call."""

from __future__ import annotations

import decimal
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit
from limiter_core._prepare import derived_demand, fixed_demand, run_now
from limiter_core.errors import ConfigurationError, KeyDerivationError


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    ONE = "1"


VALUES = st.one_of(
    st.sampled_from([0, 1, -1, False, True, 0.0, 1.0, "", "0", "1", "True", None, b"1"]),
    st.sampled_from([Number.ONE, Word.ONE, decimal.Decimal(1), "x" * 150, "x" * 500, 10**17]),
    st.sampled_from([10**18, 10**100, "ä", "\ud800", "a,b", "a/b", {}, [], ["1"], {"1": 1}]),
    st.integers(),
    st.text(max_size=5),
)
BY = (
    "a",
    "a.b",
    ["a", "b"],
    LIMIT_BY.constant("a"),
    LIMIT_BY.constant("x" * 500),
    LIMIT_BY.fn_name,
)


def outcome(limit: ConcurrencyLimit, arguments: Any, *, short: bool) -> object:
    try:
        if short:
            assert limit.fixed is not None
            return fixed_demand(limit.fixed, arguments)
        view = arguments if isinstance(arguments, ArgumentView) else ArgumentView(arguments)
        return run_now(derived_demand(limit, view))
    except KeyDerivationError as error:
        return str(error)


@pytest.mark.parametrize("scope", [None, pytest.param("eu", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("by", BY, ids=map(str, range(len(BY))))
@given(values=st.lists(VALUES, max_size=12), named=st.booleans())
def test_is_that_of_the_long_way_whatever_was_asked_before(
    by: Any, scope: str | None, values: list[Any], named: bool
) -> None:
    limit = ConcurrencyLimit(by, 2, scope=scope, cost=2, max_waiting=3)
    for value in values:
        given_: Any = {"a": value, "b": 1}
        if named:
            given_ = ArgumentView(given_, "shop.bill")
        for _ in range(2):
            assert outcome(limit, given_, short=True) == outcome(limit, given_, short=False)


def test_keeps_no_more_than_the_last_and_nothing_long() -> None:
    limit = ConcurrencyLimit("a")
    assert limit.fixed is not None
    for number in range(10_000):
        fixed_demand(limit.fixed, {"a": number})
    fixed_demand(limit.fixed, {"a": "x" * 1000})
    assert len(limit.fixed.demands) <= 64
    assert all(len(str(each)) < 10 for each in limit.fixed.demands)


def test_arguments_that_are_no_mapping_are_refused_by_a_constant_too() -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("a"))
    assert limit.fixed is not None
    known = fixed_demand(limit.fixed, None)
    assert fixed_demand(limit.fixed, {"a": 1}) is known
    wrong: Any = 42
    with pytest.raises(ConfigurationError, match="arguments are given by name"):
        fixed_demand(limit.fixed, wrong)
