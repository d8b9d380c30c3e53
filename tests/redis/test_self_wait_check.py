"""The check for a call that would wait for itself keeps to the caller's timeout, like all else."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, StoreUnavailable, SyncLimiter
from limiter_redis import RedisStore

from ._hostile_server import HostileServer, Send, well

TWO = ConcurrencyLimit(LIMIT_BY.constant("key"), 2)
WIDE = ConcurrencyLimit(LIMIT_BY.constant("key"), 2, cost=2)
KEPT = 10.0
"""Seconds in which a call with a timeout of one ends; those of the socket are far more."""


class SlowToInspect:
    """Grants one slot; refuses two, and says what is in use only when it is let."""

    def __init__(self) -> None:
        self.is_let = threading.Event()

    def __call__(self, operations: list[bytes], send: Send) -> None:
        text = b""
        if any(each.startswith(b"inspect key") for each in operations):
            self.is_let.wait(2 * KEPT)
            send(b"-ERR it took too long\r\n")
            return
        if any(b" try " in each for each in operations):
            text = b"refused key 2 2 - full"
        elif any(b" key 2 2 " in each for each in operations):
            text = b"queued key 2 2 7 -"
        if text:
            send(b"$%d\r\n%s\r\n" % (len(text), text))
        else:
            well(operations, send)


@pytest.fixture(params=["server", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    """One server, or a cluster."""
    return str(request.param)


def store_on(server: HostileServer, kind: str) -> RedisStore:
    url = server.url if kind == "server" else server.cluster_url
    return RedisStore(f"{url}?socket_timeout=30")


def was_inspected(server: HostileServer) -> bool:
    return any(each.startswith(b"inspect key") for call in list(server.calls) for each in call)


def test_in_a_thread(kind: str) -> None:
    slow = SlowToInspect()
    with HostileServer(slow) as server:
        store = store_on(server, kind)
        limiter = SyncLimiter(store)
        with limiter.hold(TWO):
            start = time.monotonic()
            with pytest.raises((TimeoutError, StoreUnavailable)):
                limiter.acquire(WIDE, timeout=1)
            assert time.monotonic() - start < KEPT
            assert was_inspected(server)
            slow.is_let.set()
        store.close()


async def test_in_a_task(kind: str) -> None:
    slow = SlowToInspect()
    with HostileServer(slow) as server:
        store = store_on(server, kind)
        limiter = Limiter(store)
        async with asyncio.timeout(2 * KEPT), limiter.hold(TWO):
            start = time.monotonic()
            with pytest.raises((TimeoutError, StoreUnavailable)):
                await limiter.acquire(WIDE, timeout=1)
            assert time.monotonic() - start < KEPT
            assert was_inspected(server)
            slow.is_let.set()
        await store.aclose()
