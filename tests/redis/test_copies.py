"""Limiters and stores that are sent to other processes, or copied."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

import cloudpickle
import pytest
import redis

from limiter_core import ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_redis import RedisStore

from ._servers import Server

LIMIT = ConcurrencyLimit("user")


class Shop:
    """An object of a user's with a limiter in it."""

    def __init__(self, limiter: SyncLimiter) -> None:
        self.limiter = limiter

    def is_free(self, user: int) -> bool:
        lease = self.limiter.try_acquire(LIMIT, {"user": user})
        if lease is not None:
            lease.release()
        return lease is not None


def test_a_limiter_of_a_url_works_in_a_pool_of_processes(server: Server) -> None:
    """As a bound method takes it along, and a function under it."""
    with SyncLimiter(f"{server.url}?namespace=shop%3Alimits", label="me") as limiter:

        @limiter.limited(LIMIT)
        def who_holds(user: int) -> list[str]:
            holders = limiter.inspect(LIMIT, {"user": user}).holders
            return [holder.label for holder in holders]

        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool, limiter.hold(LIMIT, {"user": 1}):
            assert list(pool.map(Shop(limiter).is_free, [1, 2])) == [False, True]
            sent = cloudpickle.dumps(who_holds)
            assert pool.submit(call, sent, 2).result() == ["me"]


def call(sent: bytes, *args: Any) -> Any:
    return pickle.loads(sent)(*args)


async def test_an_async_limiter_comes_back_as_it_was(server: Server) -> None:
    async with Limiter(server.url, on_store_error="admit") as limiter:
        sent = pickle.dumps(limiter)
        async with pickle.loads(sent) as other, limiter.hold(LIMIT, {"user": 1}):
            assert await other.try_acquire(LIMIT, {"user": 1}) is None
            assert other._engine.on_store_error == "admit"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, cloudpickle.dumps, pickle.dumps])
def test_a_store_comes_back_as_it_was(copied: Any) -> None:
    """With all that it was made of."""
    wake = "local function wake(id) return true end"
    url = "redis://me:hush@h:1/3?socket_timeout=2"
    store = RedisStore(url, namespace="shop", min_replicas=(1, 0.5), wake=wake)
    other = copied(store)
    other = pickle.loads(other) if isinstance(other, bytes) else other
    assert other is not store
    assert repr(other) == repr(store)
    assert other._endpoint._address == store._endpoint._address
    assert (other._script, other._min_replicas) == (store._script, store._min_replicas)
    assert other.session.tracker.process != store.session.tracker.process


def test_a_client_cannot_be_sent_but_copies_use_it(server: Server) -> None:
    client = redis.Redis.from_url(server.url)
    store = RedisStore(client=client)
    for cannot_be_sent in (store, SyncLimiter(store)):
        with pytest.raises(ConfigurationError, match=r"made of a client.*make it of a URL"):
            pickle.dumps(cannot_be_sent)
    for copied in (copy.copy, copy.deepcopy):
        with (
            closing(copied(store)) as other,
            SyncLimiter(store).hold(LIMIT, {"user": 1}),
        ):
            assert SyncLimiter(other).try_acquire(LIMIT, {"user": 1}) is None
    store.close()
    client.close()
