"""The argument view, and how calls are bound to it."""

from __future__ import annotations

import functools

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    KeyDerivationError,
    Limiter,
    SyncLimiter,
)


class Customer:
    def __init__(self) -> None:
        self.id = 7
        self.nested = {"lines": [{"sku": "x"}, {"sku": "y"}]}


VIEW = ArgumentView({"a": 1, "customer": Customer(), "b.c": "dotted", "none": None}, "shop.bill")


def test_a_view_is_a_mapping():
    assert VIEW["a"] == VIEW.get_argument("a") == VIEW.get("a") == 1
    assert list(VIEW) == ["a", "customer", "b.c", "none"]
    assert len(VIEW) == 4
    assert "a" in VIEW
    assert "z" not in VIEW
    assert dict(VIEW)["none"] is None
    assert VIEW.function_name == "shop.bill"


def test_a_view_cannot_be_written_to():
    with pytest.raises(TypeError):
        VIEW["a"] = 2


def test_get_has_a_default():
    assert VIEW.get("z") is None
    assert VIEW.get("z", 5) == 5
    assert VIEW.get("none", 5) is None
    assert VIEW.get("customer.z", 5) == 5


@pytest.mark.parametrize(
    ("path", "value"),
    [("customer.id", 7), ("customer.nested.lines.1.sku", "y"), ("b.c", "dotted"), ("none", None)],
)
def test_a_path_leads_into_objects_mappings_and_sequences(path, value):
    assert VIEW.get_argument(path) == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("z", r"shop\.bill has no argument 'z'; there are: a, b\.c, customer, none"),
        ("z.id", r"shop\.bill has no argument 'z'"),
        ("customer.z", r"'customer' is a Customer without 'z'; there are: id, nested"),
        ("customer.nested.z", r"'customer\.nested' is a dict without 'z'; there are: lines"),
        ("customer.nested.lines.2", r"'customer\.nested\.lines' is a list without '2'"),
        ("customer.nested.lines.sku", "is a list without 'sku'"),
        ("a.b", "'a' is a int without 'b'"),
        ("none.b", "'none' is a NoneType without 'b'"),
    ],
)
def test_a_path_that_leads_nowhere_lists_what_there_is(path, message):
    with pytest.raises(KeyDerivationError, match=message):
        VIEW.get_argument(path)


def test_a_call_without_arguments_says_so():
    with pytest.raises(KeyDerivationError, match="the call has no argument 'a'; there are none"):
        ArgumentView({}).get_argument("a")


def test_a_view_shows_names_but_no_values():
    assert (
        repr(ArgumentView({"password": "hunter2"}, "login")) == "<ArgumentView of login: password>"
    )


# -- binding: `seen` collects what a strategy sees of a call ---------------------------------------


class Seen:
    def __init__(self) -> None:
        self.views: list[ArgumentView] = []
        self.limit = ConcurrencyLimit(LIMIT_BY.fn(lambda view: self.views.append(view) or "x"))

    def of(self, function, *args, **kwargs):
        SyncLimiter().run(self.limit, function, *args, **kwargs)
        SyncLimiter().limited(self.limit)(function)(*args, **kwargs)
        first, second = self.views[-2:]
        assert dict(first) == dict(second)
        assert first.function_name == second.function_name
        return first


@pytest.fixture
def seen() -> Seen:
    return Seen()


def bill(customer_id, amount=5, *extra, currency="EUR", **more): ...


def test_defaults_count(seen):
    assert dict(seen.of(bill, 42)) == {
        "customer_id": 42,
        "amount": 5,
        "extra": (),
        "currency": "EUR",
        "more": {},
    }


def test_positions_and_names_are_the_same(seen):
    assert dict(seen.of(bill, 42, 3)) == dict(seen.of(bill, amount=3, customer_id=42))


def test_var_args_are_found_by_their_parameter_and_their_own_names(seen):
    view = seen.of(bill, 42, 3, "x", "y", tenant="acme")
    assert view["extra"] == ("x", "y")
    assert view["extra.1"] == "y"
    assert view["tenant"] == view["more.tenant"] == "acme"


def test_a_parameter_wins_over_a_keyword_of_its_name(seen):
    def function(tenant, /, **more): ...

    view = seen.of(function, "acme", tenant="other")
    assert view["tenant"] == "acme"
    assert view["more.tenant"] == "other"


def test_a_partial_goes_by_the_function_and_its_keywords_are_defaults(seen):
    partial = functools.partial(functools.partial(bill, amount=3), currency="USD")
    view = seen.of(partial, 42, amount=4)
    assert (view["customer_id"], view["amount"], view["currency"]) == (42, 4, "USD")
    assert view.function_name.endswith("test_arguments.bill")


def test_what_a_partial_binds_by_position_can_be_limited_by(seen):
    assert seen.of(functools.partial(bill, 42), amount=3)["customer_id"] == 42


class Shop:
    name = "corner"

    def sell(self, item): ...

    @classmethod
    def open(cls, hour=9): ...

    @staticmethod
    def greet(who): ...

    def __call__(self, item, count=1): ...


def test_methods(seen):
    bound = seen.of(Shop().sell, "tea")
    assert dict(bound) == {"item": "tea"}
    assert bound.function_name.endswith("Shop.sell")
    assert seen.of(Shop.sell, Shop(), "tea")["self.name"] == "corner"
    assert dict(seen.of(Shop.open)) == {"hour": 9}
    assert dict(seen.of(Shop.greet, "you")) == {"who": "you"}


def test_a_callable_object_goes_by_the_name_of_its_class(seen):
    view = seen.of(Shop(), "tea")
    assert dict(view) == {"item": "tea", "count": 1}
    assert view.function_name.endswith(".Shop")


def test_a_wrapped_function_is_seen_as_the_function(seen):
    @functools.wraps(bill)
    def wrapper(*args, **kwargs):
        return bill(*args, **kwargs)

    view = seen.of(wrapper, 42)
    assert view["customer_id"] == 42
    assert view.function_name.endswith("test_arguments.bill")


def test_a_call_that_does_not_fit_fails_as_the_call_itself_would(threads):
    limit = ConcurrencyLimit("customer_id")
    with pytest.raises(TypeError, match="missing a required argument: 'customer_id'"):
        threads.run(limit, bill)
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        threads.limited(limit)(lambda customer_id: None)(1, x=2)
    assert list(threads.keys()) == []


async def test_async_methods_partials_and_callable_objects_can_be_limited():
    class Job:
        async def method(self, customer_id):
            return customer_id

        async def __call__(self, customer_id):
            return customer_id

    async def function(customer_id, currency):
        return customer_id

    limiter, limit = Limiter(), ConcurrencyLimit("customer_id")
    for job in (Job().method, Job(), functools.partial(function, currency="EUR")):
        assert await limiter.run(limit, job, 42) == 42
        assert await limiter.limited(limit)(job)(customer_id=43) == 43


async def test_limited_keeps_the_name_and_the_documentation_of_the_function():
    @Limiter().limited(ConcurrencyLimit("a"))
    async def documented(a):
        """Say it."""

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Say it."
