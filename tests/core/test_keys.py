"""The text of keys: readable, injective, bounded, and apart for strategies of different kinds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, SyncLimiter

KEYS = SyncLimiter()
LONGEST = 200

AWKWARD = st.text(
    st.one_of(st.sampled_from(list(",=&/#!%(){}:.\x00 \"'\\|;ä€😀")), st.characters()), max_size=30
)
LONG = st.builds(lambda text, count: text * count, AWKWARD, st.integers(1, 60))
VALUES = st.one_of(AWKWARD, LONG, st.text("ab,=&", max_size=6))


def key(by: object, arguments: dict[str, object] | None = None, scope: str | None = None) -> str:
    return KEYS.key_for(ConcurrencyLimit(by, scope=scope), arguments or {})


def test_a_key_can_be_read():
    arguments = {"customer_id": 42, "region": "eu-west", "plan": "gold"}
    assert key("customer_id", arguments) == "customer_id=42"
    assert key(["region", "plan"], arguments) == "region=eu-west,plan=gold"
    assert key(LIMIT_BY.constant("billing_ops")) == "billing_ops"
    assert key(LIMIT_BY.fn(lambda args: f"api:{args['plan']}"), arguments) == "key:api:gold"
    both = LIMIT_BY.constant("billing_ops") & LIMIT_BY.fn_argument("region")
    assert key(both, arguments) == "billing_ops&region=eu-west"
    assert key("region", arguments, scope="billing") == "billing/region=eu-west"


@given(first=st.tuples(VALUES, VALUES), second=st.tuples(VALUES, VALUES))
def test_distinct_tuples_of_values_give_distinct_keys(first, second):
    keys = [key(["a", "b"], {"a": values[0], "b": values[1]}) for values in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


# What a function of the user returns may not look like a text for people.
RETURNED = VALUES.filter(lambda text: "**********" not in text and " at 0x" not in text)


@given(first=st.tuples(VALUES, RETURNED), second=st.tuples(VALUES, RETURNED))
def test_distinct_tuples_give_distinct_keys_when_strategies_are_combined(first, second):
    by = LIMIT_BY.fn_argument("a") & LIMIT_BY.fn(lambda args: args["b"] + ".")
    keys = [key(by, {"a": values[0], "b": values[1]}) for values in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


@given(values=st.tuples(VALUES, VALUES), cut=st.integers(0, 60))
def test_text_that_moves_from_one_value_to_the_next_moves_to_another_key(values, cut):
    joined = "".join(values)
    first, second = joined[:cut], joined[cut:]
    keys = {key(["a", "b"], {"a": a, "b": b}) for a, b in [values, (first, second)]}
    assert len(keys) == len({values, (first, second)})


@given(values=st.tuples(LONG, LONG))
def test_a_key_is_bounded_and_plain_ascii(values):
    found = key(["a", "b"], {"a": values[0], "b": values[1]})
    assert len(found) <= LONGEST
    assert re.fullmatch(r"[\x21-\x7e]+", found)
    assert "{" not in found
    assert "}" not in found


@pytest.mark.parametrize("tail", ["x", "y"])
def test_a_long_value_keeps_its_readable_head_and_loses_no_difference(tail):
    found = key("name", {"name": "customer" * 100 + tail})
    assert found.startswith("name=customercustomer")
    assert len(found) == LONGEST
    assert found != key("name", {"name": "customer" * 100 + "z"})


def test_a_cut_key_is_never_what_a_short_value_spells():
    cut = key("name", {"name": "x" * 500})
    spelled = key("name", {"name": cut.removeprefix("name=")})
    assert cut != spelled


@given(names=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_distinct_scopes_and_constants_give_distinct_keys(names):
    given_names = [name for name in names if name.strip()]
    constants = {key(LIMIT_BY.constant(name)) for name in given_names}
    scopes = {key(LIMIT_BY.constant("x"), scope=name) for name in given_names}
    assert len(constants) == len(scopes) == len(given_names)


@given(text=st.text(min_size=1, max_size=12).filter(str.strip), value=VALUES)
def test_strategies_of_different_kinds_never_share_a_key(text, value):
    def named() -> None: ...

    named.__module__, named.__qualname__ = "m", text
    seen: list[str] = []
    KEYS.run(
        ConcurrencyLimit(LIMIT_BY.fn(lambda view: seen.append(view.function_name) or "x")), named
    )
    found = [
        key(LIMIT_BY.constant(text)),
        key(LIMIT_BY.constant(f"m.{text}()")),
        key(LIMIT_BY.constant(f"{text}={value}")),
        key(LIMIT_BY.constant(f"key:{value}")),
        key("text", {"text": text}),
        key(LIMIT_BY.fn(lambda _: f"text={text}")),
        key(LIMIT_BY.fn(lambda _: text)),
        key(LIMIT_BY.constant("text") & LIMIT_BY.constant(text)),
        key(LIMIT_BY.constant("x"), scope=text),
    ]
    assert seen == [f"m.{text}"]
    distinct_inputs = {f"m.{text}()", f"{text}={value}", f"key:{value}", text}
    fn_inputs = {f"text={text}", text}
    assert len(set(found)) == len(distinct_inputs) + len(fn_inputs) + 3


def test_pairs_and_combinations_of_single_arguments_are_different_limits():
    arguments = {"a": 1, "b": 2}
    assert key(["a", "b"], arguments) != key(
        LIMIT_BY.fn_argument("a") & LIMIT_BY.fn_argument("b"), arguments
    )


@pytest.mark.parametrize("scope", ["a/b", "{tag}", "a}b{", "ü", "\x00", "a b"])
def test_a_scope_may_hold_any_text(scope):
    found = key(LIMIT_BY.constant("x"), scope=scope)
    assert found.endswith("/x")
    assert found.count("/") == 1
    assert re.fullmatch(r"[\x21-\x7e]+", found)


@pytest.mark.parametrize("scope", ["", " ", 5, b"x"])
def test_a_scope_is_text(scope):
    with pytest.raises(ConfigurationError, match="scope must be text"):
        ConcurrencyLimit("a", scope=scope)


def test_a_scope_of_any_length_is_bounded_and_its_own():
    long, longer = (key(LIMIT_BY.constant("x"), scope="s" * length) for length in (300, 301))
    assert long != longer
    assert len(long) == len(longer) == 202
    assert long.endswith("/x")
