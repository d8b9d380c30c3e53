"""How the store is connected: the clients that users have, pools, and what its errors show."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Notice, Queued, Request
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.exchange import OwnPool

from ._servers import Process, Server
from ._tools import until, until_now, until_waiting

KEY = "scope/key"
ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)

CLIENTS = pytest.mark.parametrize(
    "settings",
    [
        {"protocol": protocol, "decode_responses": decoded}
        for protocol in (2, 3)
        for decoded in (False, True)
    ],
    ids=["RESP2-raw", "RESP2-decoded", "RESP3-raw", "RESP3-decoded"],
)


@pytest.mark.every_server
@CLIENTS
def test_any_client_of_a_user_will_do_in_threads(server: Server, settings: dict[str, Any]) -> None:
    """All operations: what the client does with replies does not matter."""
    with redis.Redis.from_url(server.url, **settings) as client:
        store = RedisStore(client=client)
        face = store.sync_face()
        notices: list[Notice] = []
        face.on_notice(notices.append)
        first = face.acquire(Request("first", (Demand(KEY, 1),), label="ünïque label"))
        assert isinstance(first, Granted)
        job = Request("job", (Demand(KEY, 1, group="ä b"),), payload=b"\0\xff job")
        assert isinstance(face.acquire(job), Queued)
        assert list(face.keys()) == [KEY]
        face.set_limit(KEY, 1)
        face.pause(KEY)
        snapshot = face.inspect(KEY)
        assert [each.label for each in snapshot.holders] == ["ünïque label"]
        assert [(each.id, each.group) for each in snapshot.waiters] == [("job", "ä b")]
        assert (snapshot.paused, snapshot.override) == (True, 1)
        face.resume(KEY)
        face.reset_limit(KEY)
        assert set(face.renew(["first", "nobody"]).gone) == {"nobody"}
        assert face.evict("first")
        assert [notice.payload for notice in notices] == [b"\0\xff job"]
        face.sweep()
        assert isinstance(face.acquire(job), Granted)
        assert face.release("job")
        assert list(face.keys()) == []
        store.close()
        assert client.ping(), "the user's client is the user's to close"


@pytest.mark.every_server
@CLIENTS
async def test_any_client_of_a_user_will_do_in_an_event_loop(
    server: Server, settings: dict[str, Any]
) -> None:
    """All operations: what the client does with replies does not matter."""
    client = redis.asyncio.Redis.from_url(server.url, **settings)
    store = RedisStore(client=client)
    face = store.async_face()
    notices: list[Notice] = []
    face.on_notice(notices.append)
    first = await face.acquire(Request("first", (Demand(KEY, 1),), label="ünïque label"))
    assert isinstance(first, Granted)
    job = Request("job", (Demand(KEY, 1, group="ä b"),), payload=b"\0\xff job")
    assert isinstance(await face.acquire(job), Queued)
    assert [key async for key in face.keys()] == [KEY]
    await face.set_limit(KEY, 1)
    await face.pause(KEY)
    snapshot = await face.inspect(KEY)
    assert [each.label for each in snapshot.holders] == ["ünïque label"]
    assert [(each.id, each.group) for each in snapshot.waiters] == [("job", "ä b")]
    await face.resume(KEY)
    await face.reset_limit(KEY)
    assert set((await face.renew(["first", "nobody"])).gone) == {"nobody"}
    assert await face.evict("first")
    assert [notice.payload for notice in notices] == [b"\0\xff job"]
    await face.sweep()
    assert isinstance(await face.acquire(job), Granted)
    assert await face.release("job")
    await store.aclose()
    assert await client.ping(), "the user's client is the user's to close"
    await client.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_messages_are_heard_with_either_protocol(server: Server, protocol: int) -> None:
    """S6: the renewer's connection speaks what the URL says."""
    url = f"{server.url}?protocol={protocol}&decode_responses=True"
    here, there = RedisStore(url), RedisStore(url)
    async with Limiter(here).hold(ONE):
        waiter = asyncio.create_task(Limiter(there).acquire(ONE))
        await until(lambda: there.session.renewer.listening, "the other store listens")
        await until_waiting(Limiter(here), ONE, 1)
    lease = await asyncio.wait_for(waiter, 2.0)
    await lease.release()
    await here.aclose()
    await there.aclose()


async def test_a_thousand_waiters_on_a_pool_of_four(server: Server) -> None:
    """Row 23: waiting takes no connection, so a release gets through."""
    client = redis.asyncio.Redis.from_url(server.url, max_connections=4)
    store = RedisStore(client=client)
    limiter = Limiter(store)
    recorder = OverlapRecorder()
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=3)

    async def call() -> None:
        async with limiter.hold(limit):
            with recorder.holding("one", limit=3):
                await asyncio.sleep(0)

    first = await limiter.acquire(limit)
    calls = [asyncio.create_task(call()) for _ in range(1000)]
    await until(lambda: len(store.session.tracker.entries) == 1001, "all have asked")
    await first.release()
    await asyncio.wait_for(asyncio.gather(*calls), 30.0)
    recorder.assert_within("one", 3)
    assert len(recorder.intervals("one")) == 1000
    await store.aclose()
    await client.aclose()


def test_many_threads_on_a_pool_of_four(server: Server) -> None:
    """Row 23: who finds no free connection waits for one."""
    with redis.Redis.from_url(server.url, max_connections=4) as client:
        store = RedisStore(client=client)
        limiter = SyncLimiter(store)
        recorder = OverlapRecorder()

        def call(_: int) -> None:
            with limiter.hold(ONE), recorder.holding("one", limit=1):
                pass

        with ThreadPoolExecutor(40) as pool:
            list(pool.map(call, range(400)))
        recorder.assert_within("one", 1)
        store.close()


def test_a_connection_that_was_in_use_when_its_pool_was_closed_is_closed(server: Server) -> None:
    """Nobody would take it again: a program that ends meanwhile would leave it open."""
    pool = OwnPool(redis.Redis.from_url(server.url), Refusals())
    connection = pool.take(time.monotonic() + 5)
    pool.close()
    pool.put_back(connection)
    assert connection._sock is None


def test_a_connection_that_fails_while_it_is_opened_is_closed(server: Server) -> None:
    """Also if it is the user's credential provider that fails, as it likes."""
    opened: list[Any] = []

    class Failing(redis.CredentialProvider):
        def get_credentials(self) -> tuple[str]:
            raise LookupError("no token")

    class Noted(redis.Connection):
        def connect(self, *given: Any) -> None:
            opened.append(self)
            super().connect(*given)

    port = int(server.url.rpartition(":")[2].partition("/")[0])
    made_of: dict[str, Any] = {"port": port, "credential_provider": Failing()}
    client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Noted, **made_of))
    with pytest.raises(LookupError, match="no token"):
        OwnPool(client, Refusals()).take(time.monotonic() + 5)
    assert [connection._sock for connection in opened] == [None]


async def test_commands_per_release_do_not_grow_with_the_waiters(server: Server) -> None:
    """Row 24: no herd."""

    async def calls_per_release(waiters: int) -> int:
        here, there = RedisStore(server.url), RedisStore(server.url)
        holder = await Limiter(here).acquire(ONE)
        limiter = Limiter(there)
        waiting = [asyncio.create_task(limiter.acquire(ONE)) for _ in range(waiters)]
        await until_waiting(Limiter(here), ONE, waiters)
        await until(lambda: there.session.renewer.listening, "the other store listens")
        # Tickets are renewed every few seconds at the latest; not now.
        await asyncio.sleep(0.3)
        server.admin.config_resetstat()
        await holder.release()
        lease = await asyncio.wait_for(waiting[0], 5.0)
        counted = server.calls()
        for task in waiting[1:]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await lease.release()
        await here.aclose()
        await there.aclose()
        return counted

    few, many = await calls_per_release(2), await calls_per_release(200)
    assert many <= few + 3


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@127.0.0.1:{port}/0",
        "redis://:s3cret@127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0?password=s3cret",
        "redis://user:s3cret@127.0.0.1:1/0",
        "redis://user:s3cret@127.0.0.1:notaport/0",
        "rediss://user:s3cret@127.0.0.1:{port}/0?socket_timeout=0.5",
        "redis://user:s3cret@127.0.0.1:{port}/0?socket_timeout=s3cret",
        "nosuch://user:s3cret@127.0.0.1/0",
    ],
)
def test_no_password_is_shown(
    url: str, own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in errors, with their causes, nor in reprs, nor in logs."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    try:
        limiter = SyncLimiter(url.format(port=own_server.port))
        store = limiter._engine.store
        shown += [repr(limiter), repr(store), repr(store.session.renewer), str(store)]  # type: ignore[attr-defined]
        try:
            limiter.acquire(ONE, timeout=0.2).release()
        finally:
            until_now(lambda: not store.session.tracker.entries, "nothing is kept alive")  # type: ignore[attr-defined]
            limiter.close()
    except (StoreError, ConfigurationError) as error:
        seen: BaseException | None = error
        while seen is not None:
            shown += [repr(seen), str(seen)]
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    shown.append(caplog.text)
    assert len(shown) > 1
    assert not [text for text in shown if "s3cret" in text]


async def test_an_error_says_where_the_store_is_and_why_it_is_away() -> None:
    """The driver's error is the cause, in both worlds."""
    store = RedisStore("redis://127.0.0.1:1/5")
    calls: list[Callable[[], Any]] = [
        lambda: asyncio.to_thread(SyncLimiter(store).try_acquire, ONE),
        lambda: Limiter(store).try_acquire(ONE),
        lambda: Limiter(store).inspect("one"),
        lambda: Limiter(store).keys().__anext__(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:1/5") as caught:
            await call()
        assert isinstance(caught.value.__cause__, redis.ConnectionError | OSError)
    assert not store.session.tracker.entries
    await store.aclose()


async def test_the_server_lists_whose_connections_they_are(server: Server) -> None:
    """`CLIENT LIST` does so on Redis 7.2 and newer, and on Valkey."""
    own = f"redis-py(concurrency-limits_v{limiter_core.__version__})"
    with redis.Redis.from_url(server.url) as operator:

        def names() -> list[str]:
            connections: list[dict[str, str]] = operator.client_list()
            return [each["lib-name"] for each in connections]

        async with Limiter(server.url) as limiter, limiter.hold(ONE):
            # That of the calls, that of the renewals, and that of the messages.
            await until(lambda: names().count(own) == 3, "all three connections have their name")


def test_a_url_may_name_the_namespace(server: Server) -> None:
    """So that the operator's command sees what a framework keeps in one of its own."""
    shop, other = SyncLimiter(f"{server.url}?namespace=shop.limits"), SyncLimiter(server.url)
    with shop, other, shop.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
        assert list(shop.keys()) == ["one"]
        assert list(other.keys()) == []
        assert list(server.admin.scan_iter("{shop.limits:*")) == ["{shop.limits:one}:state"]
    with pytest.raises(ConfigurationError, match="a namespace is"):
        SyncLimiter(f"{server.url}?namespace=a{{b")
