"""Bad input: a clear error of the tree each time, in both worlds, and nothing taken."""

from __future__ import annotations

import functools

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    LimiterError,
)

from ._tools import keys_in_use

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))
BY_CUSTOMER = ConcurrencyLimit("customer_id")


class Nameless:
    pass


class FailingText:
    def __limit_key__(self) -> str:
        raise LookupError("no text")


CALLS = {
    "unknown argument": (BY_CUSTOMER, {"customer": 42}, {}, KeyDerivationError, "there are: cust"),
    "no arguments": (BY_CUSTOMER, None, {}, KeyDerivationError, "there are none at all"),
    "path that ends early": (
        ConcurrencyLimit("order.id"),
        {"order": {"no": 1}},
        {},
        KeyDerivationError,
        "there are: no",
    ),
    "default repr": (BY_CUSTOMER, {"customer_id": Nameless()}, {}, KeyDerivationError, "Nameless"),
    "function as a value": (BY_CUSTOMER, {"customer_id": len}, {}, KeyDerivationError, "key"),
    "default repr in a list": (
        BY_CUSTOMER,
        {"customer_id": [Nameless()]},
        {},
        KeyDerivationError,
        "Nameless",
    ),
    "function name of a block": (
        ConcurrencyLimit(LIMIT_BY.fn_name),
        {},
        {},
        KeyDerivationError,
        "limited",
    ),
    "strategy without an answer": (
        ConcurrencyLimit(LIMIT_BY.fn(lambda _: None)),
        {},
        {},
        KeyDerivationError,
        "must return",
    ),
    "group without an answer": (
        ConcurrencyLimit(LIMIT_BY.constant("key"), fair_by="tenant"),
        {},
        {},
        KeyDerivationError,
        "'tenant'",
    ),
    "no limit": (None, {}, {}, ConfigurationError, "give a ConcurrencyLimit"),
    "name for a limit": ("customer_id", {}, {}, ConfigurationError, "give a ConcurrencyLimit"),
    "empty list of limits": ([], {}, {}, ConfigurationError, "give a ConcurrencyLimit"),
    "list with something else": ([ONE, "a"], {}, {}, ConfigurationError, "ConcurrencyLimit"),
    "class for a limit": (ConcurrencyLimit, {}, {}, ConfigurationError, "ConcurrencyLimit"),
    "value for arguments": (ONE, 42, {}, ConfigurationError, "arguments are given by name"),
    "list for arguments": (ONE, [42], {}, ConfigurationError, "arguments are given by name"),
    "text for a timeout": (ONE, {}, {"timeout": "5"}, ConfigurationError, "timeout must be"),
    "negative timeout": (ONE, {}, {"timeout": -1}, ConfigurationError, "timeout must be"),
    "infinite timeout": (ONE, {}, {"timeout": float("inf")}, ConfigurationError, "finite"),
    "cost above the number": (
        ConcurrencyLimit(LIMIT_BY.constant("key"), max_concurrent=lambda _: 2, cost=3),
        {},
        {},
        ConfigurationError,
        "cost 3 is above the limit of 2",
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_wrong_call_is_refused_and_nothing_is_taken(limiter, threads, name):
    limits, arguments, options, kind, message = CALLS[name]
    with pytest.raises(kind, match=message) as refusal:
        await limiter.acquire(limits, arguments, **options)
    assert isinstance(refusal.value, LimiterError)
    with pytest.raises(kind, match=message):
        await limiter.hold(limits, arguments, **options).__aenter__()
    with pytest.raises(kind, match=message):
        threads.acquire(limits, arguments, **options)
    with pytest.raises(kind, match=message):
        threads.hold(limits, arguments, **options).__enter__()
    if not options:
        with pytest.raises(kind, match=message):
            await limiter.try_acquire(limits, arguments)
        with pytest.raises(kind, match=message):
            threads.try_acquire(limits, arguments)
    assert await keys_in_use(limiter) == []


async def test_one_wrong_limit_of_several_takes_nothing_of_the_others(limiter, threads):
    with pytest.raises(KeyDerivationError):
        await limiter.acquire([ONE, BY_CUSTOMER], {})
    with pytest.raises(KeyDerivationError):
        threads.acquire([ONE, BY_CUSTOMER], {})
    assert await keys_in_use(limiter) == []


async def test_what_the_text_of_a_value_raises_reaches_the_caller(limiter):
    with pytest.raises(LookupError, match="no text"):
        await limiter.acquire(BY_CUSTOMER, {"customer_id": FailingText()})
    assert await keys_in_use(limiter) == []


@pytest.mark.parametrize("limits", [None, "a", [], [ONE, None]])
def test_limited_refuses_what_is_no_limit_where_it_is_written(limiter, threads, limits):
    with pytest.raises(ConfigurationError, match="give a ConcurrencyLimit"):
        limiter.limited(limits)
    with pytest.raises(ConfigurationError, match="give a ConcurrencyLimit"):
        threads.limited(limits)


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
def test_limited_refuses_a_wrong_timeout_where_it_is_written(limiter, threads, timeout):
    for kind in (limiter, threads):
        with pytest.raises(ConfigurationError, match="timeout must be"):
            kind.limited(ONE, timeout=timeout)


def plain() -> None: ...


def generator():
    yield 1


async def coroutine() -> None: ...


async def async_generator():
    yield 1


class AsyncCallable:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize("function", [plain, generator, functools.partial(plain), "plain", None, 5])
async def test_the_async_limiter_takes_coroutine_functions_only(limiter, function):
    with pytest.raises(ConfigurationError, match=r"Limiter\.limited\(\) needs a coroutine"):
        limiter.limited(ONE)(function)
    with pytest.raises(ConfigurationError, match=r"Limiter\.run\(\) needs a coroutine"):
        await limiter.run(ONE, function)
    assert await keys_in_use(limiter) == []


async def test_run_takes_no_generator_function(limiter, threads):
    """Its body would run without the slot."""
    with pytest.raises(ConfigurationError, match=r"there is Limiter\.limited\(\)"):
        await limiter.run(ONE, async_generator)
    with pytest.raises(ConfigurationError, match=r"there is SyncLimiter\.limited\(\)"):
        threads.run(ONE, generator)


@pytest.mark.parametrize(
    "function",
    [coroutine, async_generator, functools.partial(coroutine), AsyncCallable(), "plain", None],
)
def test_the_sync_limiter_takes_plain_functions_only(threads, function):
    with pytest.raises(ConfigurationError, match=r"SyncLimiter\.limited\(\) needs a"):
        threads.limited(ONE)(function)
    with pytest.raises(ConfigurationError, match=r"SyncLimiter\.run\(\) needs a"):
        threads.run(ONE, function)
    assert list(threads.keys()) == []


async def test_key_for_and_inspect_take_one_limit(limiter, threads):
    for wrong in ([ONE], None, 5):
        with pytest.raises(ConfigurationError):
            await limiter.key_for(wrong)
        with pytest.raises(ConfigurationError):
            threads.key_for(wrong)
        with pytest.raises(ConfigurationError):
            await limiter.inspect(wrong)
        with pytest.raises(ConfigurationError):
            threads.inspect(wrong)


def test_a_function_without_a_signature_is_refused_with_an_error_of_the_tree(threads):
    with pytest.raises(LimiterError):
        threads.run(ONE, dict, customer_id=42)
    with pytest.raises(LimiterError):
        threads.limited(ONE)(dict)
    assert list(threads.keys()) == []
