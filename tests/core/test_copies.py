"""Copies of limiters share the slots; what would not is refused in words."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import pytest

from limiter_core import ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_core.testing import FullStore, UnlimitedStore
from limiter_memory import MemoryStore

LIMIT = ConcurrencyLimit("user")


class Named(SyncLimiter):
    """A limiter of a user's own."""

    def __init__(self, name: str) -> None:
        super().__init__("memory://")
        self.name = name


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "make", [SyncLimiter, lambda: SyncLimiter(MemoryStore()), lambda: Named("mine")]
)
def test_a_copy_in_the_process_shares_the_slots(make: Any, copied: Any) -> None:
    limiter = make()
    other = copied({"limiter": limiter, "again": limiter})["limiter"]
    if copied is copy.deepcopy:
        assert other is not limiter
    other = copied(limiter)
    assert type(other) is type(limiter)
    with limiter.hold(LIMIT, {"user": 1}):
        assert other.try_acquire(LIMIT, {"user": 1}) is None
        assert other.inspect(LIMIT, {"user": 1}).in_use == 1
    lease = other.try_acquire(LIMIT, {"user": 1})
    assert lease is not None
    lease.release()


def test_a_copy_has_the_attributes_of_a_subclass() -> None:
    assert copy.deepcopy(Named("mine")).name == "mine"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_an_async_copy_shares_the_slots(copied: Any) -> None:
    limiter = Limiter(label="me", on_store_error="admit")
    other = copied(limiter)
    async with limiter.hold(LIMIT, {"user": 1}):
        assert await other.try_acquire(LIMIT, {"user": 1}) is None
    async with other.hold(LIMIT, {"user": 1}):
        snapshot = await limiter.inspect(LIMIT, {"user": 1})
        assert [holder.label for holder in snapshot.holders] == ["me"]


async def test_the_end_of_a_copy_is_not_that_of_the_original() -> None:
    limiter = Limiter()
    async with copy.copy(limiter):
        pass
    async with limiter.hold(LIMIT, {"user": 1}):
        pass
    await limiter.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await copy.copy(limiter).acquire(LIMIT, {"user": 1})


@pytest.mark.parametrize("url", ["memory://", "memory://shared"])
@pytest.mark.parametrize("kind", [Limiter, SyncLimiter])
def test_what_is_in_this_process_cannot_be_sent_to_another(kind: Any, url: str) -> None:
    """Its name is no help: the store of that name over there has other slots."""
    for cannot_be_sent in (kind(url), MemoryStore(), kind(MemoryStore())):
        with pytest.raises(ConfigurationError, match=r"in this process.*URL of a store"):
            pickle.dumps(cannot_be_sent)


@pytest.mark.parametrize("double", [UnlimitedStore, FullStore])
def test_a_limiter_on_a_double_answers_the_same_in_another_process(double: Any) -> None:
    store = double()
    limiter = SyncLimiter(store)
    other: SyncLimiter = pickle.loads(pickle.dumps(limiter))
    for each in (limiter, other):
        lease = each.try_acquire(LIMIT, {"user": 1})
        assert (lease is not None) == (double is UnlimitedStore)
        if lease is not None:
            assert pickle.loads(pickle.dumps(each)).inspect(LIMIT, {"user": 1}).in_use == 0
            for copied in (copy.copy(store), copy.deepcopy(store)):
                assert copied.inspect("user=1").in_use == (each is limiter)
            lease.release()


class NamedDouble(UnlimitedStore):
    """A double of a user's own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def test_a_double_of_a_user_s_own_keeps_what_it_has() -> None:
    assert pickle.loads(pickle.dumps(NamedDouble("mine"))).name == "mine"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_lease_is_its_own_copy(copied: Any) -> None:
    """What collects the one that was copied would say that it was never released."""
    limiter = SyncLimiter()
    lease = limiter.acquire(LIMIT, {"user": 1})
    other = copied(lease)
    del lease
    gc.collect()
    assert not other.lost
    other.release()
    assert limiter.inspect(LIMIT, {"user": 1}).in_use == 0


async def test_a_lease_cannot_be_sent_to_another_process_and_the_error_says_what_can() -> None:
    async with Limiter().hold(LIMIT, {"user": 1}) as lease:
        with SyncLimiter().hold(LIMIT, {"user": 1}) as of_a_thread:
            for each in (lease, of_a_thread):
                with pytest.raises(ConfigurationError, match="send its id and its fencing_token"):
                    pickle.dumps(each)
