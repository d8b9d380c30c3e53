"""`limited` on functions, methods, partials and callables, in every order of decorators."""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.arguments import Binder
from limiter_core.jobs import check_argument_names

LIMITER, THREADS = Limiter(), SyncLimiter()
PER_CUSTOMER = ConcurrencyLimit("customer", 5)
EVERYONE = ConcurrencyLimit(LIMIT_BY.constant("everyone"))


def logged(function):
    @functools.wraps(function)
    def logged_function(*args, **kwargs):
        return function(*args, **kwargs)

    return logged_function


async def resolved(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


# -- orders that work: each class has `call`, which returns its argument ---------------------------


class AsyncMethods:
    @LIMITER.limited(PER_CUSTOMER)
    async def plain(self, customer, more=0):
        return customer, more

    @staticmethod
    @LIMITER.limited(PER_CUSTOMER)
    async def static(customer, more=0):
        return customer, more

    @classmethod
    @LIMITER.limited(PER_CUSTOMER)
    async def of_class(cls, customer, more=0):
        assert cls is AsyncMethods
        return customer, more

    @logged
    @LIMITER.limited(PER_CUSTOMER)
    @logged
    async def between(self, customer, more=0):
        return customer, more


class SyncMethods:
    @THREADS.limited(PER_CUSTOMER)
    def plain(self, customer, more=0):
        return customer, more

    @staticmethod
    @THREADS.limited(PER_CUSTOMER)
    def static(customer, more=0):
        return customer, more

    @classmethod
    @THREADS.limited(PER_CUSTOMER)
    def of_class(cls, customer, more=0):
        assert cls is SyncMethods
        return customer, more

    @logged
    @THREADS.limited(PER_CUSTOMER)
    @logged
    def between(self, customer, more=0):
        return customer, more

    @functools.cache  # noqa: B019
    @THREADS.limited(PER_CUSTOMER)
    @functools.cache  # noqa: B019
    def cached(self, customer, more=0):
        return customer, more


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (cls, name)
        for cls in (AsyncMethods, SyncMethods)
        for name in vars(cls)
        if not name.startswith("_")
    ],
)
async def test_limited_below_another_decorator_works_on_class_and_instance(cls, name):
    owners = [cls()] if name in ("plain", "between", "cached") else [cls, cls()]
    for owner in owners:
        assert await resolved(getattr(owner, name)(1)) == (1, 0)
        assert await resolved(getattr(owner, name)(customer=1, more=2)) == (1, 2)


class Job:
    async def __call__(self, customer, more=0):
        return customer, more


class SyncJob:
    def __call__(self, customer, more=0):
        return customer, more


async def job(customer, more):
    return customer, more


def sync_job(customer, more):
    return customer, more


@pytest.mark.parametrize(
    "function",
    [
        LIMITER.limited(PER_CUSTOMER)(Job()),
        LIMITER.limited(PER_CUSTOMER)(AsyncMethods().plain),
        LIMITER.limited(PER_CUSTOMER)(AsyncMethods.of_class),
        LIMITER.limited(PER_CUSTOMER)(functools.partial(job, more=0)),
        functools.partial(LIMITER.limited(PER_CUSTOMER)(job), more=0),
        LIMITER.limited(EVERYONE)(LIMITER.limited(PER_CUSTOMER)(Job())),
        THREADS.limited(PER_CUSTOMER)(SyncJob()),
        THREADS.limited(PER_CUSTOMER)(SyncMethods().plain),
        THREADS.limited(PER_CUSTOMER)(SyncMethods.of_class),
        THREADS.limited(PER_CUSTOMER)(functools.partial(sync_job, more=0)),
        functools.partial(THREADS.limited(PER_CUSTOMER)(sync_job), more=0),
        THREADS.limited(EVERYONE)(THREADS.limited(PER_CUSTOMER)(SyncJob())),
    ],
)
async def test_callables_partials_and_bound_methods_can_be_limited(function):
    assert await resolved(function(1)) == (1, 0)
    assert await resolved(function(customer=1)) == (1, 0)


def test_an_abstract_method_stays_abstract_in_either_order():
    class Base(abc.ABC):
        @abc.abstractmethod
        @THREADS.limited(PER_CUSTOMER)
        def above(self, customer): ...

        @THREADS.limited(PER_CUSTOMER)
        @abc.abstractmethod
        def below(self, customer): ...

    assert Base.__abstractmethods__ == {"above", "below"}


def test_a_limited_property_holds_while_it_is_computed():
    held: list[str] = []

    class Shop:
        @property
        @THREADS.limited(EVERYONE)
        def size(self):
            held.extend(THREADS.keys())
            return 3

    assert (Shop().size, held) == (3, ["everyone"])


# -- orders that cannot work are refused when they are written -------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        staticmethod,
        classmethod,
        property,
        functools.cached_property,
        functools.partialmethod,
        functools.singledispatchmethod,
    ],
)
@pytest.mark.parametrize("limiter", [LIMITER, THREADS])
def test_limited_above_what_makes_a_method_is_refused_and_says_the_order(limiter, kind):
    below = kind(AsyncMethods.plain if limiter is LIMITER else SyncMethods.plain)
    with pytest.raises(ConfigurationError, match=rf"write @{kind.__name__} above it"):
        limiter.limited(EVERYONE)(below)


@pytest.mark.parametrize("manager", [contextlib.contextmanager, contextlib.asynccontextmanager])
@pytest.mark.parametrize("limiter", [LIMITER, THREADS])
def test_limited_above_a_context_manager_is_refused(limiter, manager):
    def generator():
        yield

    async def async_generator():
        yield

    below = manager(generator if manager is contextlib.contextmanager else async_generator)
    with pytest.raises(ConfigurationError):
        limiter.limited(EVERYONE)(below)


def test_a_decorator_that_is_a_context_manager_may_stand_below():
    @contextlib.contextmanager
    def around():
        yield

    @THREADS.limited(PER_CUSTOMER)
    @around()
    def function(customer):
        return customer

    assert function(1) == 1


@pytest.mark.parametrize("how", ["limited", "run"])
def test_a_plain_function_that_returns_a_coroutine_is_refused(how):
    def later(customer):
        return job(customer, 0)

    run = functools.partial(THREADS.run, EVERYONE, later)
    call = run if how == "run" else THREADS.limited(EVERYONE)(logged(later))
    with pytest.raises(ConfigurationError, match=r"returned a coroutine.*there is Limiter"):
        call(1)
    assert list(THREADS.keys()) == []


@pytest.mark.parametrize("kind", ["a generator", "an async generator"])
@pytest.mark.parametrize("how", ["limited", "run"])
def test_a_plain_function_that_returns_a_generator_is_refused(how, kind):
    """Below the limit stands a decorator; it hides that the function below that one yields."""

    def items(customer):
        yield customer

    async def async_items(customer):
        yield customer

    later = logged(items if kind == "a generator" else async_items)
    run = functools.partial(THREADS.run, EVERYONE, later)
    call = run if how == "run" else THREADS.limited(EVERYONE)(later)
    with pytest.raises(ConfigurationError, match=f"returned {kind}, which would run after"):
        call(1)
    assert list(THREADS.keys()) == []


def collected(function):
    @functools.wraps(function)
    async def collected_function(*args, **kwargs):
        return [item async for item in function(*args, **kwargs)]

    return collected_function


def in_a_list(function):
    @functools.wraps(function)
    def function_of_a_list(*args, **kwargs):
        return list(function(*args, **kwargs))

    return function_of_a_list


def streamed(function):
    @functools.wraps(function)
    async def streamed_function(*args, **kwargs):
        yield await function(*args, **kwargs)

    return streamed_function


async def in_use(customer):
    return (await LIMITER.inspect(PER_CUSTOMER, {"customer": customer})).in_use


async def test_what_counts_is_what_the_decorator_below_makes_of_a_function():
    async def items(customer):
        yield await in_use(customer)

    assert await LIMITER.limited(PER_CUSTOMER)(collected(items))(1) == [1]
    stream = LIMITER.limited(PER_CUSTOMER)(streamed(in_use))(1)
    assert [item async for item in stream] == [1]
    stream = LIMITER.limited(PER_CUSTOMER)(logged(logged(items)))(1)
    assert [item async for item in stream] == [1]
    assert await LIMITER.limited(PER_CUSTOMER)(logged(logged(in_use)))(1) == 1


def test_a_function_that_makes_a_list_of_a_generator_is_a_plain_one():
    def items(customer):
        yield THREADS.inspect(PER_CUSTOMER, {"customer": customer}).in_use

    assert THREADS.limited(PER_CUSTOMER)(in_a_list(items))(1) == [1]


class HasAnything:
    """As the methods of `xmlrpc.client` do, it has whatever attribute is asked for."""

    def __getattr__(self, name):
        return HasAnything()

    def __call__(self):
        return 1


def test_what_has_any_attribute_is_called_what_it_is():
    """It would go on for ever to look for what it stands around."""
    with pytest.raises(ConfigurationError, match="needs a coroutine function"):
        LIMITER.limited(EVERYONE)(HasAnything())


# -- names of arguments ----------------------------------------------------------------------------


def functions(limiter: Limiter | SyncLimiter) -> dict[str, Any]:
    if limiter is LIMITER:

        async def bill(customer_id, amount=0): ...
        async def anything(customer_id, **more): ...
        async def nothing(): ...
    else:

        def bill(customer_id, amount=0): ...
        def anything(customer_id, **more): ...
        def nothing(): ...

    return {
        "bill": bill,
        "anything": anything,
        "nothing": nothing,
        "partial": functools.partial(bill, amount=1),
        "method": type("Shop", (), {"bill": bill}),
    }


@pytest.mark.parametrize("limiter", [LIMITER, THREADS])
@pytest.mark.parametrize(
    "limit",
    [
        ConcurrencyLimit("customer"),
        ConcurrencyLimit("customer.id"),
        ConcurrencyLimit(["customer_id", "customer"]),
        ConcurrencyLimit(LIMIT_BY.fn_name & LIMIT_BY.fn_argument("customer")),
        ConcurrencyLimit("customer_id", fair_by="customer"),
        [ConcurrencyLimit("customer_id"), ConcurrencyLimit("customer")],
    ],
    ids=["name", "path", "several", "combined", "fair_by", "limits"],
)
@pytest.mark.parametrize("name", ["bill", "partial"])
def test_a_limit_by_an_argument_that_the_function_lacks_is_refused_at_once(limiter, limit, name):
    with pytest.raises(
        ConfigurationError,
        match=r"an argument 'customer', which .*bill does not have; there are: customer_id, amount",
    ):
        limiter.limited(limit)(functions(limiter)[name])


@pytest.mark.parametrize("limiter", [LIMITER, THREADS])
@pytest.mark.parametrize(
    ("by", "name"),
    [
        ("customer_id", "bill"),
        ("customer_id.x.y", "bill"),
        ("amount", "partial"),
        ("customer", "anything"),
        (LIMIT_BY.fn(lambda call: call["customer"]), "bill"),
        (LIMIT_BY.fn_name, "nothing"),
    ],
)
def test_names_that_there_are_and_that_cannot_be_known_are_taken(limiter, by, name):
    limiter.limited(ConcurrencyLimit(by))(functions(limiter)[name])


@pytest.mark.parametrize("limiter", [LIMITER, THREADS])
def test_a_function_without_arguments_says_so(limiter):
    with pytest.raises(ConfigurationError, match="nothing does not have; it has none"):
        limiter.limited(PER_CUSTOMER)(functions(limiter)["nothing"])


def test_the_check_can_hide_parameters_and_name_the_function_anew():
    def task(ctx, customer_id): ...

    binder = Binder(task)
    binder.name = "shop.task"
    check_argument_names([ConcurrencyLimit("ctx")], binder)
    with pytest.raises(ConfigurationError, match=r"shop\.task does not have; there are: customer_"):
        check_argument_names([ConcurrencyLimit("ctx")], binder, hidden=["ctx"])
