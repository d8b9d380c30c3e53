"""The calls of an event loop: how long they take at the most, and in which order."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from limiter_core import StoreUnavailable
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.protocol import commands
from limiter_redis.transport import batching

from ._hostile_server import HostileServer, Send, well
from ._servers import Process
from ._tools import until_true

KEY = "scope/key"


async def seconds_until_given_up(store: RedisStore) -> float:
    """Return after how many seconds a call fails that has no deadline of its own."""
    began_at = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.async_face().inspect(KEY)
    return time.monotonic() - began_at


@pytest.mark.parametrize("connected", [True, False])
async def test_what_waits_behind_calls_that_hang_has_one_timeout(
    own_server: Process, connected: bool
) -> None:
    store = RedisStore(f"{own_server.url}?socket_timeout=1")
    if connected:
        await store.async_face().inspect(KEY)
    with own_server.frozen():
        asked: list[asyncio.Task[float]] = []
        for _ in range(6):  # two travel at once
            asked.append(asyncio.create_task(seconds_until_given_up(store)))
            await asyncio.sleep(0.1)
        took = await asyncio.gather(*asked)
    assert max(took) < 1.6, took
    await until_true(partial(answers, store), "it answers again")
    await store.aclose()


async def answers(store: RedisStore) -> bool:
    try:
        await store.async_face().inspect(KEY)
    except StoreUnavailable:
        return False
    return True


async def test_a_release_follows_an_acquire_that_was_sent_again_in_another_form() -> None:
    """Else a server that lost the script, and got it from another client, has a slot that leaks."""
    late: list[bytes] = []

    def answer(operations: list[bytes], send: Send) -> None:
        if late and operations[0].startswith(b"acquire"):
            return  # the answer comes once the release is on its way
        if late:
            send(late.pop())
        well(operations, send)

    with HostileServer(answer) as server:
        store = RedisStore(server.url)
        await store.async_face().pause(KEY)
        transport = store.session.async_transport()
        late.append(b"-ERR Function not found\r\n")
        replies = [transport.submit(commands.acquire(Request("one", (Demand(KEY, 1),))))]
        await asyncio.sleep(0)
        replies.append(transport.submit(commands.release("one", KEY)))
        await asyncio.gather(*replies)
        await store.aclose()
    done = [each.split()[0] for call in server.calls for each in call]
    assert done[-4:] == [b"acquire", b"release", b"acquire", b"release"], done


@pytest.mark.parametrize("url", ["url", "cluster_url"])
async def test_closing_fails_what_was_not_answered(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "CLOSING_TIMEOUT", 0.2)
    with HostileServer(well) as server:
        store = RedisStore(f"{getattr(server, url)}?socket_timeout=60")
        await store.async_face().pause(KEY)
        server.answer = lambda *_: None
        asked = [asyncio.create_task(store.async_face().pause(KEY)) for _ in range(3)]
        await asyncio.sleep(0)
        await store.aclose()
        async with asyncio.timeout(5.0):
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StoreUnavailable] * 3
    assert "closed" in str(outcomes[0])


async def test_a_call_does_not_overtake_one_that_still_reads_the_policies(
    own_server: Process,
) -> None:
    """Another thread may have read them meanwhile: then a later call needs not to."""
    store = RedisStore(own_server.url)
    face = store.async_face()
    first = asyncio.ensure_future(face.acquire(Request("first", (Demand(KEY, 1),), lease=30.0)))
    await asyncio.sleep(0)  # its question is on the way
    store.session.tracker.policies.update((), time.monotonic())
    second = asyncio.ensure_future(face.acquire(Request("second", (Demand(KEY, 1),), lease=30.0)))
    assert isinstance(await first, Granted)
    assert isinstance(await second, Queued)
    assert not store.session.tracker.policies.readers
    await store.aclose()
