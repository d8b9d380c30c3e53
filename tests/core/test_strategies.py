"""Strategies: the built-in ones, their shorthands, combinations, and a user's own."""

from __future__ import annotations

import gc
import pickle
import warnings

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConcurrencyStrategy,
    ConfigurationError,
    KeyDerivationError,
    Limiter,
    SyncLimiter,
)


class ByTier(ConcurrencyStrategy):
    def get_key(self, execution: ArgumentView) -> str:
        return f"tier:{execution.get_argument('tier')}"


class ByTierLater(ConcurrencyStrategy):
    async def get_key(self, execution: ArgumentView) -> str:
        return f"tier:{execution.get_argument('tier')}"


class DuckTyped:
    def get_key(self, execution: ArgumentView) -> str:
        return execution["tier"]


class Returning(ConcurrencyStrategy):
    def __init__(self, value: object) -> None:
        self.value = value

    def get_key(self, execution: ArgumentView) -> object:
        return self.value


CALL = {"tier": "gold", "region": "eu", "order": {"customer": {"id": 7}, "lines": [{"sku": "x"}]}}


async def sync_and_async_key(by: object) -> str:
    limit = ConcurrencyLimit(by)
    key = SyncLimiter().key_for(limit, CALL)
    assert key == await Limiter().key_for(limit, CALL)
    return key


@pytest.mark.parametrize(
    ("shorthand", "spelled"),
    [
        ("tier", LIMIT_BY.fn_argument("tier")),
        (["tier", "region"], LIMIT_BY.fn_argument("tier", "region")),
        (("tier", "region"), LIMIT_BY.fn_argument("tier", "region")),
        ("order.customer.id", LIMIT_BY.fn_argument("order.customer.id")),
    ],
)
async def test_a_shorthand_is_the_strategy_spelled_out(shorthand, spelled):
    assert ConcurrencyLimit(shorthand) == ConcurrencyLimit(spelled)
    assert await sync_and_async_key(shorthand) == await sync_and_async_key(spelled)


def test_no_strategy_means_by_function_name():
    assert ConcurrencyLimit(max_concurrent=3) == ConcurrencyLimit(
        LIMIT_BY.fn_name, max_concurrent=3
    )


async def test_a_dotted_path_leads_into_dicts_lists_and_objects():
    assert await sync_and_async_key("order.customer.id") == "order.customer.id=7"
    assert await sync_and_async_key("order.lines.0.sku") == "order.lines.0.sku=x"


@pytest.mark.parametrize("own", [ByTier(), DuckTyped(), LIMIT_BY.fn(lambda args: args["tier"])])
async def test_a_strategy_of_ones_own(own):
    assert (await sync_and_async_key(own)).startswith("key:")
    assert "gold" in await sync_and_async_key(own)


async def test_an_async_strategy_has_the_key_of_the_same_sync_one():
    later = await Limiter().key_for(ConcurrencyLimit(ByTierLater()), CALL)
    assert later == await sync_and_async_key(ByTier()) == "key:tier:gold"


async def test_an_async_function_makes_a_key():
    async def tier(args: ArgumentView) -> str:
        return args["tier"]

    assert await Limiter().key_for(ConcurrencyLimit(LIMIT_BY.fn(tier)), CALL) == "key:gold"


async def test_combined_strategies_have_the_parts_of_both():
    by = ByTier() & LIMIT_BY.fn_argument("region")
    assert await sync_and_async_key(by) == "key:tier:gold&region=eu"


async def test_combining_goes_on_and_does_not_depend_on_brackets():
    a, b, c = LIMIT_BY.constant("a"), LIMIT_BY.fn_argument("region"), ByTier()
    assert (a & b) & c == a & (b & c)
    assert await sync_and_async_key(a & b & c) == "a&region=eu&key:tier:gold"


async def test_combining_takes_any_object_with_get_key_and_shorthands():
    assert await sync_and_async_key(LIMIT_BY.constant("a") & DuckTyped()) == "a&key:gold"
    assert await sync_and_async_key(LIMIT_BY.constant("a") & "region") == "a&region=eu"


async def test_an_async_strategy_can_be_combined():
    limit = ConcurrencyLimit(LIMIT_BY.constant("a") & ByTierLater() & ByTierLater())
    assert await Limiter().key_for(limit, CALL) == "a&key:tier:gold&key:tier:gold"


async def test_the_function_name_is_module_and_qualified_name():
    limit = ConcurrencyLimit(LIMIT_BY.fn_name)
    view = ArgumentView({}, "shop.tasks.bill")
    assert SyncLimiter().key_for(limit, view) == "shop.tasks.bill()"


def test_bare_arguments_have_no_function_name():
    with pytest.raises(KeyDerivationError, match=r"use limited\(\) or run\(\)"):
        SyncLimiter().key_for(ConcurrencyLimit(max_concurrent=3), {"a": 1})


@pytest.mark.parametrize("value", [None, ""])
def test_a_strategy_must_return_something(value):
    with pytest.raises(KeyDerivationError, match="must return the text"):
        SyncLimiter().key_for(ConcurrencyLimit(Returning(value)))


@pytest.mark.parametrize(("value", "key"), [(0, "key:0"), (False, "key:!False"), (7, "key:7")])
def test_a_strategy_may_return_any_value_with_a_stable_text(value, key):
    assert SyncLimiter().key_for(ConcurrencyLimit(Returning(value))) == key


def test_what_a_strategy_raises_reaches_the_caller_and_nothing_is_taken(threads):
    def broken(args: ArgumentView) -> str:
        raise LookupError("no such tier")

    with pytest.raises(LookupError, match="no such tier"):
        threads.acquire(ConcurrencyLimit(LIMIT_BY.fn(broken)))
    assert list(threads.keys()) == []


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (5, "max_concurrent=5"),
        (lambda args: "x", r"LIMIT_BY\.fn\(function\)"),
        (LIMIT_BY, "use one of its members"),
        (ByTier, r"give an instance of the strategy: ByTier\(\)"),
        (object(), "a limit is by an argument's name"),
        (b"name", "a limit is by an argument's name"),
        ({"a"}, "a limit is by an argument's name"),
        ([], "at least one argument name"),
        ("", "non-empty text"),
        ("  ", "non-empty text"),
        (["a", ""], "non-empty text"),
        (["a", 5], "non-empty text"),
        ("a..b", "not a path"),
        (".a", "not a path"),
        ("a.", "not a path"),
    ],
)
def test_what_is_no_strategy_is_refused_with_a_hint(by, message):
    with pytest.raises(ConfigurationError, match=message):
        ConcurrencyLimit(by)


@pytest.mark.parametrize(
    "make",
    [
        LIMIT_BY.fn_argument,
        lambda: LIMIT_BY.constant(""),
        lambda: LIMIT_BY.constant(5),
        lambda: LIMIT_BY.fn("region"),
        lambda: LIMIT_BY.fn_argument(None),
        lambda: LIMIT_BY.fn_name & 5,
    ],
)
def test_a_built_in_strategy_refuses_wrong_arguments(make):
    with pytest.raises(ConfigurationError):
        make()


def test_a_strategy_without_get_key_cannot_be_made():
    class Unfinished(ConcurrencyStrategy):
        pass

    with pytest.raises(TypeError, match="get_key"):
        Unfinished()


@pytest.mark.parametrize(
    "strategy",
    [
        LIMIT_BY.fn_name,
        LIMIT_BY.constant("a"),
        LIMIT_BY.fn_argument("a", "b"),
        LIMIT_BY.fn_name & LIMIT_BY.fn_argument("a"),
        LIMIT_BY.fn(len),
    ],
)
def test_strategies_are_values(strategy):
    copy = pickle.loads(pickle.dumps(strategy))
    assert copy == strategy
    assert hash(copy) == hash(strategy)
    assert repr(strategy).startswith("LIMIT_BY.")


@pytest.mark.parametrize(
    "by", [ByTierLater(), ByTierLater() & ByTierLater()], ids=["one", "combined"]
)
def test_an_async_strategy_is_refused_by_the_sync_limiter(threads, by):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            threads.acquire(ConcurrencyLimit(by), CALL)
        except ConfigurationError as error:
            refusal = str(error)
        gc.collect()
    assert "SyncLimiter cannot await" in refusal
    assert list(threads.keys()) == []
    assert [str(warning.message) for warning in warned] == []  # no coroutine is left behind
