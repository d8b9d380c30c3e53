"""TLS, with an authority of our own: one server, Sentinel and Cluster, by URL and by clients."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from limiter_core import ConcurrencyLimit, Limiter, StoreError, SyncLimiter
from limiter_redis import RedisStore
from tests.faults._sentinel import SERVICE, SentinelProcess

from ._servers import Process, binary, server_program
from ._tls import Authority, TLSFront
from ._tools import until, until_now

LIMIT = ConcurrencyLimit("key", lease=3)


class Places:
    """A server, a Sentinel that names it, and a cluster of one node; all behind TLS.

    Attributes:
        ca: the file with the certificate of their authority.
        own: the options of a client with a certificate of its own, which Sentinel asks for.
        ports: where they listen, by kind.
        fronts: what listens there.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        program = binary()
        assert program is not None
        authority = Authority(folder)
        certificate, key = authority.issue("client", password=b"open")
        self.ca = str(authority.ca)
        self.own = {
            "ssl_certfile": str(certificate),
            "ssl_keyfile": str(key),
            "ssl_password": "open",
        }
        server = stack.enter_context(closing(Process(program)))
        sentinel = stack.enter_context(closing(SentinelProcess(program)))
        self.fronts = {
            "server": TLSFront(authority, server.port, plain_too=True),
            "sentinel": TLSFront(authority, sentinel.port),
            "cluster": TLSFront(authority),
        }
        for front in self.fronts.values():
            stack.enter_context(closing(front))
        self.ports = {name: front.port for name, front in self.fronts.items()}
        # It names what it was told to watch, and speaks no TLS itself.
        sentinel.watch(self.ports["server"])
        node = stack.enter_context(
            closing(
                Process(
                    program,
                    *("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"),
                    *("--cluster-announce-port", str(self.ports["cluster"])),
                    *("--cluster-port", str(_free_port())),
                )
            )
        )
        node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until_now(
            lambda: node.admin.cluster("info")["cluster_state"] == "ok", "the cluster is whole"
        )
        self.fronts["cluster"].target = node.port

    def url(self, kind: str, options: str = "") -> str:
        port, end = self.ports[kind], f"?ssl_ca_certs={self.ca}{options}"
        return {
            "server": f"rediss://127.0.0.1:{port}/0{end}",
            "sentinel": f"rediss+sentinel://127.0.0.1:{port}/{SERVICE}/0{end}",
            "cluster": f"rediss+cluster://127.0.0.1:{port}{end}",
        }[kind]

    def client(self, kind: str, world: str, **options: Any) -> Any:
        """Return a client of redis-py."""
        address: dict[str, Any] = {"host": "127.0.0.1", "port": self.ports[kind]}
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": self.ca, **options}
        is_async = world == "async"
        if kind == "server":
            return (redis.asyncio.Redis if is_async else redis.Redis)(**address, **tls)
        if kind == "cluster":
            return (redis.asyncio.RedisCluster if is_async else redis.RedisCluster)(
                **address, **tls
            )
        module: Any = redis.asyncio.sentinel if is_async else redis.sentinel
        asked = module.Sentinel([(address["host"], address["port"])], sentinel_kwargs=tls)
        return asked.master_for(SERVICE, **tls)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    server_program()
    with ExitStack() as stack:
        yield Places(tmp_path_factory.mktemp("tls"), stack)


async def both_worlds_work(store: RedisStore, front: TLSFront) -> None:
    """A slot is handed over from a loop to a thread, in another process's eyes, and back."""
    before = front.connections
    other = RedisStore(*(), **store._made_of)  # the same, and nothing shared
    here, there = Limiter(store), SyncLimiter(other)
    lease = await here.acquire(LIMIT, {"key": "x"})
    waiting = asyncio.create_task(asyncio.to_thread(there.acquire, LIMIT, {"key": "x"}, timeout=10))
    entries = other.session.tracker.entries

    def waits() -> bool:
        assert not waiting.done(), waiting.result()  # or its error, which says more
        return any(each.waiting for each in entries.values())

    await until(waits, "the other waits")
    await lease.release()
    got = await waiting
    assert (await here.inspect(LIMIT, {"key": "x"})).in_use == 1
    await asyncio.to_thread(got.release)
    assert [key async for key in here.keys()] == []
    assert front.connections > before
    await asyncio.to_thread(other.close)
    await store.aclose()


@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
async def test_by_url(kind: str, places: Places) -> None:
    await both_worlds_work(RedisStore(places.url(kind)), places.fronts[kind])


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
async def test_by_a_client_of_either_world(kind: str, world: str, places: Places) -> None:
    """Whichever it is, both limiters work on it."""
    client = (
        await asyncio.to_thread(places.client, kind, world)
        if world == "sync"
        else (places.client(kind, world))
    )
    try:
        await both_worlds_work(RedisStore(client=client), places.fronts[kind])
    finally:
        if world == "async":
            await client.aclose()
        else:
            client.close()
            if kind == "sentinel":
                for each in client.connection_pool.sentinel_manager.sentinels:
                    each.close()


@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
async def test_whose_certificate_is_not_trusted_is_not_spoken_to(kind: str, places: Places) -> None:
    """In either world, and unless one says that nothing is to be checked."""
    url = places.url(kind)
    unknown = url.replace(f"ssl_ca_certs={places.ca}", "socket_timeout=2")
    async with Limiter(unknown) as limiter:
        with pytest.raises(StoreError):
            await limiter.acquire(LIMIT, {"key": "x"}, timeout=1.0)
    with SyncLimiter(unknown) as sync, pytest.raises(StoreError):
        await asyncio.to_thread(sync.acquire, LIMIT, {"key": "x"}, timeout=1.0)
    unchecked = unknown.replace("socket_timeout=2", "ssl_cert_reqs=CERT_NONE")
    await both_worlds_work(RedisStore(unchecked), places.fronts[kind])


async def test_a_name_that_is_not_in_the_certificate(places: Places) -> None:
    url = places.url("server", "&ssl_check_hostname=true").replace("127.0.0.1", "127.0.0.2")
    async with Limiter(url) as limiter:
        with pytest.raises(StoreError):
            await limiter.acquire(LIMIT, {"key": "x"}, timeout=1.0)


async def test_clients_with_certificates_of_their_own(places: Places, tmp_path: Path) -> None:
    """With a key that has a password."""
    target = places.fronts["server"].target
    authority = Authority(tmp_path)
    certificate, key = authority.issue("me", password=b"open")
    with closing(TLSFront(authority, target, clients_too=True)) as front:
        own = f"&ssl_certfile={certificate}&ssl_keyfile={key}&ssl_password=open"
        url = f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={authority.ca}"
        await both_worlds_work(RedisStore(url + own), front)
        with SyncLimiter(url) as limiter, pytest.raises(StoreError):
            await asyncio.to_thread(limiter.acquire, LIMIT, {"key": "x"}, timeout=1.0)


def test_loops_made_by_hand_leave_nothing_open(places: Places) -> None:
    limiter = Limiter(places.url("server"))

    async def work() -> None:
        async with limiter.hold(LIMIT, {"key": "x"}):
            assert [key async for key in limiter.keys()] == ["key=x"]

    gc.collect()
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = lambda message, *_: found.append(str(message))
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(work())
            loop.close()
        limiter._engine.store.close()
        gc.collect()
    assert found == []
