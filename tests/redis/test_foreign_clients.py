"""Stores made of clients that other libraries made: those that Docket yields."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.credentials import CredentialProvider, StreamingCredentialProvider

from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_redis import RedisStore
from tests.faults._replicated import Cluster
from tests.faults._sentinel import SERVICE, Sentinel

from ._servers import PATIENCE, Process, server_program
from ._tools import until, until_outlived
from .test_cluster import RIGHTS

docket = pytest.importorskip("docket", reason="docket is not installed (pip install pydocket)")

LEASE = 1.5
LIMIT = ConcurrencyLimit("key", max_concurrent=1, lease=LEASE)
OTHER = ConcurrencyLimit("key", max_concurrent=1, scope="other", lease=LEASE)
GIVEN = {"key": "x"}
SECRET = ("--requirepass", "s3cret", "--masterauth", "s3cret")


class Provider(CredentialProvider):
    """Credentials, and how often they were asked for."""

    def __init__(self, *credentials: str) -> None:
        self.credentials: Any = credentials
        self.asked = 0

    def get_credentials(self) -> Any:
        self.asked += 1
        return self.credentials

    async def get_credentials_async(self) -> Any:
        self.asked += 1
        return self.credentials


class AsyncProvider(CredentialProvider):
    """One that was written for asyncio alone."""

    def __init__(self, *credentials: str) -> None:
        self.credentials: Any = credentials

    async def get_credentials_async(self) -> Any:
        await asyncio.sleep(0)
        return self.credentials


class SyncProvider(CredentialProvider):
    """One that was written for threads alone."""

    def __init__(self, *credentials: str) -> None:
        self.credentials: Any = credentials

    def get_credentials(self) -> Any:
        return self.credentials


class Streaming(Provider, StreamingCredentialProvider):
    """Tells one client at a time of new ones: the last that registered."""

    def __init__(self, *credentials: str) -> None:
        super().__init__(*credentials)
        self.listeners: list[Any] = []

    def on_next(self, callback: Callable[[Any], None]) -> None:
        self.listeners.append(callback)

    def on_error(self, callback: Callable[[Exception], None]) -> None:
        pass

    def is_streaming(self) -> bool:
        return True


SLOW = pytest.mark.slow
PROVIDERS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Provider, marks=SLOW),
        AsyncProvider,
        pytest.param(SyncProvider, marks=SLOW),
        Streaming,
    ],
)


@asynccontextmanager
async def docket_client(url: str, provider: CredentialProvider | None = None) -> AsyncIterator[Any]:
    """Yield the client of a docket of this URL."""
    more = {} if provider is None else {"credential_provider": provider}
    async with docket.Docket("shop", url, **more) as shop, shop.redis() as client:
        yield client


async def works(client: Any, namespace: str, *limits: ConcurrencyLimit) -> None:
    """Check that two stores of a client do all: calls, hand-overs, renewals, jobs, names."""
    store, other = (RedisStore(client=client, namespace=namespace) for _ in range(2))
    thread = asyncio.to_thread
    limiter, sync, face = Limiter(store), SyncLimiter(other), store.async_face()
    received: list[str] = []
    face.on_notice(lambda notice: received.append(notice.id))
    lease = await limiter.acquire([*limits], GIVEN)
    waiting = asyncio.create_task(thread(sync.acquire, [*limits], GIVEN))
    lives = other.session.tracker.entries
    await until(lambda: any(live.waiting for live in lives.values()), "it waits")
    await until(lambda: other.session.renewer.listening, "it listens")
    await until_outlived(lease, LEASE)
    await lease.release()
    got = await asyncio.wait_for(waiting, PATIENCE)
    assert got is not None
    await until_outlived(got, LEASE)
    keys = [key async for key in face.keys()]
    assert len(keys) == len(limits)
    job = Request("job", tuple(Demand(key, 1) for key in keys), payload=b"job")
    assert isinstance(await face.acquire(job), Queued)
    await thread(got.release)  # by a process that cannot wake jobs: it tells those that can
    await until(lambda: received == ["job"], "the notice is forwarded")
    assert isinstance(await face.acquire(job), Granted)
    await face.sweep()
    assert await face.release("job")
    assert [key async for key in face.keys()] == []
    await store.aclose()
    await other.aclose()


# -- one server ------------------------------------------------------------------------------------


@PROVIDERS
async def test_a_client_of_one_server(kind: Any, own_server: Process) -> None:
    """With credentials of each kind; nobody takes the docket's place with the provider."""
    own_server.admin.config_set("requirepass", "s3cret")
    provider = kind("default", "s3cret")
    async with docket_client(own_server.url, provider) as client:
        registered = len(getattr(provider, "listeners", ()))
        await works(client, "shop:limits", LIMIT, OTHER)
        await client.ping()
        assert len(getattr(provider, "listeners", ())) == registered


async def test_a_silent_server_is_given_up(own_server: Process) -> None:
    """The docket's client would wait for it for ever: a worker's read may take long."""
    async with docket_client(own_server.url) as client:
        assert client.connection_pool.connection_kwargs["socket_timeout"] is None
        store = RedisStore(client=client, namespace="shop:limits")
        limiter, sync = Limiter(store), SyncLimiter(store)
        await (await limiter.acquire(LIMIT, GIVEN)).release()
        await asyncio.to_thread(lambda: sync.acquire(LIMIT, GIVEN).release())
        with own_server.frozen():
            started_at = time.monotonic()
            calls: list[Any] = [
                limiter.try_acquire(LIMIT, GIVEN),
                asyncio.to_thread(sync.try_acquire, LIMIT, GIVEN),
                limiter.inspect(LIMIT, GIVEN),
                store.async_face().sweep(),
            ]
            answers = await asyncio.wait_for(
                asyncio.gather(*calls, return_exceptions=True), 3 * store._endpoint.timeout
            )
            assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
            assert time.monotonic() - started_at < 3 * store._endpoint.timeout
        async with limiter.hold(LIMIT, GIVEN):
            pass
        await store.aclose()


@SLOW
def test_a_silent_server_is_given_up_by_threads_on_their_own_pool(own_server: Process) -> None:
    """A client for threads without a timeout of its own: the store's holds."""
    client: Any = redis.Redis.from_url(own_server.url, socket_timeout=None)
    with closing(RedisStore(client=client)) as store:
        limiter = SyncLimiter(store)
        limiter.acquire(LIMIT, GIVEN).release()
        with own_server.frozen():
            started_at = time.monotonic()
            with pytest.raises(StoreUnavailable, match="Timeout"):
                limiter.try_acquire(LIMIT, GIVEN)
            assert time.monotonic() - started_at < 3 * store._endpoint.timeout
        limiter.acquire(LIMIT, GIVEN).release()
    client.close()


# -- Sentinel --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Sentinel]:
    server_program()
    with closing(Sentinel()) as sentinel:
        yield sentinel


async def test_a_client_behind_sentinels(sentinel: Sentinel) -> None:
    """Its pool is a class of the docket's own."""
    async with docket_client(sentinel.url) as client:
        assert type(client.connection_pool).__name__ == "OwnedSentinelConnectionPool"
        assert client.connection_pool.connection_kwargs["socket_timeout"] is None
        assert SERVICE in repr(RedisStore(client=client))
        await works(client, "shop:limits", LIMIT, OTHER)
        await client.ping()  # the store closed nothing of the docket's


@PROVIDERS
async def test_credentials_behind_sentinels(kind: Any, sentinel: Sentinel) -> None:
    """They are for the servers; the Sentinels want none."""
    for server in sentinel._servers:
        server.admin.execute_command(
            "ACL", "SETUSER", "shop", "reset", "on", ">s3cret", "~shop:*", "&shop:*", "+@all"
        )
    provider = kind("shop", "s3cret")
    async with docket_client(sentinel.url, provider) as client:
        registered = len(getattr(provider, "listeners", ()))
        await works(client, "shop:limits", LIMIT, OTHER)
        assert len(getattr(provider, "listeners", ())) == registered
    for server in sentinel._servers:
        server.admin.execute_command("ACL", "DELUSER", "shop")


async def test_a_docket_follows_a_failover(sentinel: Sentinel) -> None:
    """A lease that was replicated lives on at the new master; new calls go there."""
    limit = ConcurrencyLimit("key", max_concurrent=1, lease=20)
    async with docket_client(sentinel.url) as client:
        store = RedisStore(client=client, namespace="shop:limits")
        limiter = Limiter(store)
        lease = await limiter.acquire(limit, GIVEN)
        [master] = sentinel.primaries()
        assert await asyncio.to_thread(master.admin.wait, 1, 5000) == 1
        await asyncio.to_thread(sentinel.failover)
        async with limiter.hold(limit, {"key": "y"}, timeout=10):
            assert (await limiter.inspect(limit, GIVEN)).in_use == 1
        assert not lease.lost
        await lease.release()
        await store.aclose()


# -- Cluster ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with closing(Cluster()) as cluster:
        yield cluster


def first_node(cluster: Cluster) -> str:
    """Return the URL of one node: the docket's URL has one host."""
    return f"redis+cluster://127.0.0.1:{cluster.primaries()[0].port}"


@pytest.mark.cluster
async def test_a_client_of_a_cluster(cluster: Cluster) -> None:
    """In the docket's slot; without a read timeout of its own."""
    async with docket_client(first_node(cluster)) as client:
        assert isinstance(client, redis.asyncio.RedisCluster)
        assert client.connection_kwargs["socket_timeout"] is None
        await works(client, "{shop}:limits", LIMIT, OTHER)
        await client.ping()
        store = RedisStore(client=client, namespace="{shop}:limits")
        assert store._endpoint.timeout == 5.0
        await store.aclose()


@pytest.mark.cluster
@PROVIDERS
async def test_credentials_of_a_cluster(kind: Any, cluster: Cluster) -> None:
    """A provider, in the wrapping that the docket gives to its clients of a cluster."""
    ours = "~{limiter:*}:* ~{limiter}:*", "&{limiter:*}:process:* &{limiter}:notices"
    rights = RIGHTS.replace(ours[0], "~{shop}:*").replace(ours[1], "&{shop}:*")
    for server in cluster.primaries():
        server.admin.execute_command(
            *("ACL", "SETUSER", "shop", "reset", "on", ">s3cret"),
            *rights.split(),
            *("+cluster", "+command", "+info"),  # which redis-py's own client asks for
        )
    provider = kind("shop", "s3cret")
    async with docket_client(first_node(cluster), provider) as client:
        registered = len(getattr(provider, "listeners", ()))
        await works(client, "{shop}:limits", LIMIT, OTHER)
        assert len(getattr(provider, "listeners", ())) == registered


@pytest.mark.cluster
async def test_a_password_in_the_url_of_a_cluster(cluster: Cluster) -> None:
    for server in cluster.primaries():
        server.admin.execute_command(
            "ACL", "SETUSER", "shop", "reset", "on", ">s3/cret", "~{shop}*", "&{shop}*", "+@all"
        )
    url = first_node(cluster).replace("://", "://shop:s3%2Fcret@")
    async with docket_client(url) as client:
        await works(client, "{shop}:limits", LIMIT, OTHER)


@pytest.mark.cluster
@SLOW
async def test_a_silent_node_is_given_up(cluster: Cluster) -> None:
    """Calls to it end, though the docket's client would wait for ever."""
    async with docket_client(first_node(cluster)) as client:
        store = RedisStore(client=client, namespace="{shop}:limits")
        limiter = Limiter(store)
        await (await limiter.acquire(LIMIT, GIVEN)).release()
        nodes = cluster.primaries()
        frozen = [server.frozen() for server in nodes]
        for each in frozen:
            each.__enter__()
        try:
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(
                    limiter.try_acquire(LIMIT, GIVEN), 4 * store._endpoint.timeout
                )
        finally:
            for each in frozen:
                each.__exit__(None, None, None)
        cluster.until_whole()
        async with limiter.hold(LIMIT, GIVEN, timeout=20):
            pass
        await store.aclose()
