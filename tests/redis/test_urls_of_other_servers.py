"""A URL of a cluster at a plain server, and the other way round."""

from __future__ import annotations

import asyncio

import pytest

from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    StoreError,
    SyncLimiter,
)
from limiter_redis import RedisStore

from ._hostile_server import HostileServer, Send
from ._servers import Server

LIMIT = ConcurrencyLimit("id")
CALL = {"id": 1}


async def test_a_plain_url_of_a_cluster_says_which_url_to_give() -> None:
    def moved(_: list[bytes], send: Send) -> None:
        send(b"-MOVED 42 127.0.0.1:7001\r\n")

    with HostileServer(moved) as server:
        store = RedisStore(server.url)
        with pytest.raises(StoreError, match=r"redis\+cluster://"):
            await Limiter(store).acquire(LIMIT, CALL)
        with pytest.raises(StoreError, match=r"redis\+cluster://"):
            await asyncio.to_thread(SyncLimiter(store).acquire, LIMIT, CALL)
        await store.aclose()


async def test_a_url_of_a_cluster_at_a_plain_server_says_which_url_to_give(server: Server) -> None:
    store = RedisStore(server.url.replace("redis://", "redis+cluster://"))
    with pytest.raises(StoreError, match="redis://host:port in place of"):
        await Limiter(store).acquire(LIMIT, CALL)
    with pytest.raises(StoreError, match="redis://host:port in place of"):
        await asyncio.to_thread(SyncLimiter(store).acquire, LIMIT, CALL)
    await store.aclose()
