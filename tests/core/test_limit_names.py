"""Names of limits: the given one, or what the strategy says of itself; how they are bounded."""

from __future__ import annotations

import functools
import logging
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConcurrencyStrategy,
    ConflictResolution,
    KeyDerivationError,
    Limiter,
    LimitReached,
    QueueFull,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core import _names as names
from limiter_core._names import MAX_COUNTED, OTHER, counted_name, name_of
from limiter_core.testing import FullStore, UnlimitedStore
from limiter_memory import MemoryStore

from ._tools import shown


class ByTier(ConcurrencyStrategy):
    def get_key(self, execution: ArgumentView) -> str:
        return execution["tier"]


class DuckTyped:
    def get_key(self, execution: ArgumentView) -> str:
        return execution["tier"]


class Caller:
    def __call__(self, view: ArgumentView) -> str:
        return view["tier"]

    def by_tier(self, view: ArgumentView) -> str:
        return view["tier"]


def by_tier(view: ArgumentView) -> str:
    return view["tier"]


def local_function():
    def by_local(view: ArgumentView) -> str:
        return view["tier"]

    return by_local


BILL = ArgumentView({"tier": "gold", "region": "eu"}, "shop.bill")
BARE = ArgumentView({"tier": "gold", "region": "eu"})
LAMBDA = LIMIT_BY.fn(lambda view: view["tier"])


@pytest.mark.parametrize(
    ("by", "of_a_function", "of_a_hold"),
    [
        ("tier", "tier", "tier"),
        (["region", "tier"], "region,tier", "region,tier"),
        ("order.customer.id", "order.customer.id", "order.customer.id"),
        (LIMIT_BY.constant("the crm"), "the crm", "the crm"),
        (LIMIT_BY.constant("a\nb\x1b[1m\u202e"), "a?b?[1m?", "a?b?[1m?"),
        (LIMIT_BY.fn(by_tier), "by_tier", "by_tier"),
        (LIMIT_BY.fn(Caller().by_tier), "Caller.by_tier", "Caller.by_tier"),
        (LAMBDA, "shop.bill", "fn"),
        (LIMIT_BY.fn(local_function()), "shop.bill", "fn"),
        (LIMIT_BY.fn(Caller()), "shop.bill", "fn"),
        (LIMIT_BY.fn(functools.partial(by_tier)), "shop.bill", "fn"),
        (ByTier(), "shop.bill", "ByTier"),
        (DuckTyped(), "shop.bill", "DuckTyped"),
        (ByTier() & LIMIT_BY.fn_argument("region"), "shop.bill&region", "ByTier&region"),
        (
            LIMIT_BY.constant("crm") & LIMIT_BY.fn_argument("region", "tier") & LAMBDA,
            "crm&region,tier&shop.bill",
            "crm&region,tier&fn",
        ),
    ],
    ids=shown,
)
def test_a_strategy_says_what_its_limit_is_called(by, of_a_function, of_a_hold):
    limit = ConcurrencyLimit(by)
    assert name_of(limit, BILL) == of_a_function
    assert name_of(limit, BARE) == of_a_hold
    assert name_of(pickle.loads(pickle.dumps(ConcurrencyLimit("tier"))), BILL) == "tier"


def test_a_limit_by_function_is_called_as_the_function():
    assert name_of(ConcurrencyLimit(), BILL) == "shop.bill"
    both = ConcurrencyLimit(LIMIT_BY.fn_name & LIMIT_BY.fn_argument("tier"))
    assert name_of(both, BILL) == "shop.bill&tier"
    with pytest.raises(KeyDerivationError):
        SyncLimiter().acquire(ConcurrencyLimit())


@pytest.mark.parametrize(
    "by", ["tier", None, ByTier(), LAMBDA, LIMIT_BY.constant("a") & ByTier()], ids=shown
)
def test_a_given_name_is_the_name(by):
    limit = ConcurrencyLimit(by, name="billing")
    assert name_of(limit, BILL) == name_of(limit, BARE) == "billing"
    assert limit.fixed_name == "billing"


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_name_is_printable_and_bounded_whatever_the_code_is_called(constant, function):
    by = LIMIT_BY.fn_name & LIMIT_BY.constant(constant + "x")
    name = name_of(ConcurrencyLimit(by), ArgumentView({}, function))
    assert name.isprintable()
    assert 0 < len(name) <= 100


def test_long_names_that_differ_at_the_end_stay_different():
    found = {
        name_of(ConcurrencyLimit(LIMIT_BY.constant("a" * 200 + end)), BARE) for end in ("b", "c")
    }
    assert len(found) == 2


@pytest.mark.parametrize(
    "by", ["tier", LIMIT_BY.constant("crm"), LIMIT_BY.fn_name, ByTier()], ids=shown
)
def test_a_name_never_changes_the_key(by):
    limiter = SyncLimiter()
    plain, named = ConcurrencyLimit(by), ConcurrencyLimit(by, name="billing")
    assert limiter.key_for(plain, BILL) == limiter.key_for(named, BILL)


def test_a_limit_keeps_no_more_names_of_functions_than_a_bound():
    limit = ConcurrencyLimit()
    for number in range(3000):
        assert name_of(limit, ArgumentView({}, f"f{number}")) == f"f{number}"
    assert len(limit.known_names) <= 1000


# -- what is counted -------------------------------------------------------------------------------


@pytest.fixture
def no_names(monkeypatch):
    """No name was counted yet in this process."""
    monkeypatch.setattr(names, "_counted", {})
    monkeypatch.setattr(names, "_numbers", iter(range(10**9)))


@pytest.mark.usefixtures("no_names")
def test_a_process_counts_a_hundred_names_and_says_so_once(caplog):
    first = [f"user-{number}" for number in range(MAX_COUNTED)]
    with caplog.at_level(logging.WARNING, "limiter"):
        assert [counted_name(name) for name in first] == first
        assert not caplog.records
        assert {counted_name(f"later-{number}") for number in range(1000)} == {OTHER}
    assert [record.getMessage().count("'later-0'") for record in caplog.records] == [1]
    assert [counted_name(name) for name in first] == first
    assert len(names._counted) <= MAX_COUNTED + 1


@pytest.mark.usefixtures("no_names")
def test_threads_together_count_no_more_names_than_one():
    counted: set[str] = set()
    barrier = threading.Barrier(8)

    def count(thread: int) -> None:
        barrier.wait()
        counted.update(counted_name(f"{thread}-{number}") for number in range(50))

    threads = [threading.Thread(target=count, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted - {OTHER}) <= MAX_COUNTED


# -- where a name is shown -------------------------------------------------------------------------


async def test_both_worlds_give_the_store_the_name():
    store = MemoryStore()
    by_function = ConcurrencyLimit(ByTier())
    limiter, sync = Limiter(store), SyncLimiter(store)
    async with limiter.hold(by_function, BARE) as lease:
        assert store.inspect(lease.keys[0]).name == "ByTier"
        assert repr(lease) == f"<Lease {lease.id} on key:gold (ByTier): held>"
    with sync.hold([ConcurrencyLimit("tier", name="tiers"), by_function], BILL) as lease:
        found = [store.inspect(key).name for key in lease.keys]
    assert found == ["tiers", "shop.bill"]

    @limiter.limited(ConcurrencyLimit(max_concurrent=2))
    async def bill() -> str:
        [key] = store.keys()
        return store.inspect(key).name

    assert (await bill()).endswith("bill")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"on_conflict": "cancel"}, LimitReached),
        ({"max_waiting": 0}, QueueFull),
        ({"timeout": 0.01}, WaitTimeout),
    ],
)
async def test_an_error_names_the_limit(options, kind):
    limit = ConcurrencyLimit(ByTier(), name="billing", **options)
    store = MemoryStore()
    async with Limiter(store).hold(limit, BARE):
        with pytest.raises(kind, match=r"'key:gold' \(billing\)") as refusal:
            await Limiter(store).acquire(limit, BARE)
        assert refusal.value.name == "billing"
        with pytest.raises(kind, match=r"'key:gold' \(billing\)"):
            SyncLimiter(store).acquire(limit, BARE)


def test_the_doubles_know_names():
    limit = ConcurrencyLimit("tier", name="billing", on_conflict=ConflictResolution.QUEUE)
    store = UnlimitedStore()
    with SyncLimiter(store).hold(limit, BARE):
        assert store.inspect("tier=gold").name == "billing"
    with pytest.raises(WaitTimeout) as refusal:
        SyncLimiter(FullStore()).acquire(limit, BARE)
    assert refusal.value.name == "billing"
