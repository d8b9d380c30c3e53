"""A store that cannot be reached, or refuses us: what is said, what is raised, what is tried."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
    outage,
)
from limiter_core.backoff import backoff
from limiter_core.lease import SyncLease
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_redis.session.entries import Entry

from ._hostile_server import HostileServer, Send, well
from ._listeners import NotingListener
from ._servers import Process
from ._tools import until, until_now

LIMIT = ConcurrencyLimit("id")
SHORT = ConcurrencyLimit("id", lease=6)
CALL = {"id": 1}
NOBODY = "redis://user:s3cret@127.0.0.1:1/0"
"""Where nothing listens."""
WAITS = "calls wait until the store can be used"


@pytest.fixture
def strict() -> Iterator[HostileServer]:
    """A server that wants a password."""
    with HostileServer(well) as server:
        server.password = b"right"
        yield server


def with_password(server: HostileServer, kind: str, password: str) -> str:
    url = server.url if kind == "server" else server.cluster_url
    return url.replace("://", f"://:{password}@")


@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_the_error_of_a_call_has_the_reason_that_is_one(world: str) -> None:
    """Not that of the last try, which the caller's patience cut off."""
    asked: list[list[bytes]] = []

    def answer(operations: list[bytes], send: Send) -> None:
        asked.append(operations)
        if len(asked) <= 2:  # the second is the first one, sent again at once
            raise OSError

    limit = ConcurrencyLimit("id", timeout=1.0)
    with HostileServer(answer) as server:
        store = RedisStore(server.url)
        acquired: Awaitable[object]
        if world == "threads":
            acquired = asyncio.to_thread(SyncLimiter(store).acquire, limit, CALL)
        else:
            acquired = Limiter(store).acquire(limit, CALL)
        with pytest.raises(StoreUnavailable, match="closed by server"):
            await acquired
        assert len(asked) > 2
        await store.aclose()


async def test_a_task_that_waits_for_the_store_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "SAY_AGAIN", 0.5)
    limiter = Limiter(NOBODY)
    waiter = asyncio.create_task(limiter.acquire(LIMIT, CALL))
    await until(lambda: WAITS in caplog.text, "it is said")
    assert caplog.text.count(WAITS) == 1
    assert "redis://127.0.0.1:1/0" in caplog.text, "where"
    assert "Error 111" in caplog.text, "why"
    assert "s3cret" not in caplog.text
    await until(lambda: "s so far)" in caplog.text, "it is said again, with the time")
    waiter.cancel()
    await asyncio.wait([waiter])
    await limiter.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse what does not fit in the queue")
@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_a_host_that_drops_all_packets_is_said_long_before_a_reply_would_be_late(
    world: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a firewall: not even a refusal comes back."""
    limit = ConcurrencyLimit("id", timeout=4.5)
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # and nothing accepts
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        store = RedisStore(f"redis://127.0.0.1:{full.getsockname()[1]}/0?socket_timeout=60")
        acquired: Awaitable[object]
        if world == "threads":
            acquired = asyncio.to_thread(SyncLimiter(store).acquire, limit, CALL)
        else:
            acquired = Limiter(store).acquire(limit, CALL)
        waiter = asyncio.ensure_future(acquired)
        # redis-py by itself gives up after five seconds.
        await until(lambda: WAITS in caplog.text, "it is said", patience=4.0)
        assert "Timeout connecting to server" in caplog.text
        with pytest.raises(StoreUnavailable):
            await waiter
        await store.aclose()


@pytest.mark.parametrize("world", ["event loop", "threads"])
@pytest.mark.parametrize("url", ["redis+cluster://127.0.0.1:1", f"{NOBODY}?min_replicas=1"])
async def test_where_calls_are_repeated_a_wrong_url_is_said_as_soon(
    url: str, world: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = ConcurrencyLimit("id", timeout=4.5)
    store = RedisStore(url, namespace=world)  # of its own: what has one name warns once
    acquired: Awaitable[object]
    if world == "threads":
        acquired = asyncio.to_thread(SyncLimiter(store).acquire, limit, CALL)
    else:
        acquired = Limiter(store).acquire(limit, CALL)
    waiter = asyncio.ensure_future(acquired)
    await until(lambda: WAITS in caplog.text, "it is said", patience=4.0)
    assert "127.0.0.1:1" in caplog.text
    with pytest.raises(StoreUnavailable):
        await waiter
    await store.aclose()


@pytest.mark.parametrize("world", ["event loop", "threads"])
@pytest.mark.parametrize("url", ["redis://{}", "rediss://{}", "redis://:s3cret@{}", "unix://{}"])
async def test_what_takes_a_connection_and_says_nothing_is_said_as_soon(
    url: str, world: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As a wrong port does, TLS for a server without it, or a server that hangs."""
    limit = ConcurrencyLimit("id", timeout=4.5)
    with contextlib.ExitStack() as opened:
        if url.startswith("unix"):
            listener = opened.enter_context(socket.socket(socket.AF_UNIX))
            place = str(tmp_path / "silent")
            listener.bind(place)
            listener.listen()
        else:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            place = f"127.0.0.1:{listener.getsockname()[1]}"
        store = RedisStore(url.format(place) + "?socket_timeout=60")
        acquired: Awaitable[object]
        if world == "threads":
            acquired = asyncio.to_thread(SyncLimiter(store).acquire, limit, CALL)
        else:
            acquired = Limiter(store).acquire(limit, CALL)
        waiter = asyncio.ensure_future(acquired)
        await until(lambda: WAITS in caplog.text, "it is said", patience=4.0)
        assert "Timeout" in caplog.text
        assert "s3cret" not in caplog.text
        with pytest.raises(StoreUnavailable):
            await waiter
        await store.aclose()


async def test_many_limiters_of_one_store_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    limiters = [Limiter("redis://127.0.0.1:1/1") for _ in range(50)]
    waiters = [asyncio.create_task(limiter.acquire(LIMIT, CALL)) for limiter in limiters]
    await until(lambda: all(limiter._engine.waiting for limiter in limiters), "all wait")
    assert caplog.text.count(WAITS) == 1
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    await asyncio.gather(*(limiter.aclose() for limiter in limiters))


def test_many_stores_whose_server_hangs_say_it_once(
    own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    limiters = [SyncLimiter(own_server.url) for _ in range(5)]
    leases = [limiter.acquire(SHORT, {"id": n}) for n, limiter in enumerate(limiters)]
    with own_server.frozen():
        # Each tries to renew, in vain.
        until_now(lambda: all(limiter_fails(each) for each in limiters), "all fail to renew")
    assert caplog.text.count("cannot renew leases") == 1
    for lease, limiter in zip(leases, limiters, strict=True):
        lease.release()
        limiter.close()


def limiter_fails(limiter: SyncLimiter) -> bool:
    store: Any = limiter._engine.store
    return any(each.renewing._failures for each in store.session.renewer._workers.values())


def test_a_thread_that_waits_for_the_store_says_so(
    own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.kill()
    limiter = SyncLimiter(own_server.url)
    done: list[SyncLease] = []
    thread = threading.Thread(target=lambda: done.append(limiter.acquire(LIMIT, CALL)))
    thread.start()
    until_now(lambda: WAITS in caplog.text, "it is said")
    assert caplog.text.count(WAITS) == 1
    own_server.start()
    thread.join(20)
    assert done, "it is served when the store is there"
    done[0].release()
    assert "the store is back" in caplog.text
    limiter.close()


async def test_a_name_that_does_not_resolve_may_be_a_host_that_is_not_up_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = Limiter("redis://no-such-host.invalid:6379/0")
    waiter = asyncio.create_task(limiter.acquire(LIMIT, CALL))
    await until(lambda: WAITS in caplog.text, "it is said")
    assert "no-such-host.invalid" in caplog.text
    assert not waiter.done(), "it is tried again"
    waiter.cancel()
    await asyncio.wait([waiter])
    await limiter.aclose()


@pytest.mark.parametrize("kind", ["server", "cluster"])
@pytest.mark.parametrize("on_store_error", ["raise", "admit"])
async def test_refused_credentials_are_no_outage(
    strict: HostileServer, kind: str, on_store_error: str
) -> None:
    store = RedisStore(with_password(strict, kind, "wrong"))
    for limiter in (Limiter(store, on_store_error=on_store_error), Limiter(store)):  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="password") as caught:
            await limiter.acquire(LIMIT, CALL)
        assert not isinstance(caught.value, StoreUnavailable)
    sync = SyncLimiter(store, on_store_error=on_store_error)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="password") as caught:
        await asyncio.to_thread(sync.acquire, LIMIT, CALL)
    assert not isinstance(caught.value, StoreUnavailable)
    await store.aclose()


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_refused_credentials_are_tried_ever_less_often(
    strict: HostileServer, kind: str
) -> None:
    """And again, for passwords rotate: the server is asked a few times, not by each call."""
    store = RedisStore(with_password(strict, kind, "new"))
    limiter, sync = Limiter(store), SyncLimiter(store)
    for _ in range(100):
        with pytest.raises(StoreError):
            await limiter.acquire(LIMIT, CALL)
        with pytest.raises(StoreError):
            await asyncio.to_thread(sync.acquire, LIMIT, CALL)
    assert strict.connections < 40
    strict.password = b"new"
    lease = None
    async with asyncio.timeout(20):
        while lease is None:
            try:
                lease = await limiter.acquire(LIMIT, CALL)
            except StoreError:
                await asyncio.sleep(0.05)
    await lease.release()
    await store.aclose()


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_a_renewal_that_fails_holds_up_nothing_else(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: a release is done all the same."""

    def fails(*_: object) -> None:
        raise RuntimeError("as a fault in what reads the replies")

    with HostileServer(well) as server:
        store = RedisStore(server.url if kind == "server" else server.cluster_url)
        for each in ("held", "given up"):
            request = Request(each, (Demand("key", 2),), lease=60, listener=NotingListener())
            store.sync_face().acquire(request)
        with monkeypatch.context() as patched:
            patched.setattr(store.session.tracker, "renewed", fails)
            store.session.tracker.messages_lost()  # so it is due
            until_now(
                lambda: any(call[0].startswith(b"renew") for call in server.calls), "it is renewed"
            )
            store.session.abandon("given up", "key")
            until_now(
                lambda: any(call[0].startswith(b"release") for call in server.calls),
                "it is given up",
            )
        store.sync_face().release("held", ("key",))
        store.close()


def is_due(entry: Entry) -> bool:
    return entry.renew_at <= time.monotonic()


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_what_takes_long_is_sent_once(kind: str) -> None:
    """A server that is far away has no more to renew and to release than one that is near."""

    def answer(operations: list[bytes], send: Send) -> None:
        if operations[0].startswith((b"renew", b"release")):
            time.sleep(0.35)  # the fault itself: an answer that takes more than three ticks
        well(operations, send)

    with HostileServer(answer) as server:
        store = RedisStore(server.url if kind == "server" else server.cluster_url)
        tracker = store.session.tracker
        for each in ("held", "given up"):
            request = Request(each, (Demand("key", 2),), lease=60, listener=NotingListener())
            store.sync_face().acquire(request)
        until_now(lambda: store.session.renewer.listening, "what was missed before is asked for")
        until_now(lambda: not any(map(is_due, tracker.entries.values())), "and is answered")
        server.calls.clear()
        store.session.abandon("given up", "key")
        tracker.messages_lost()  # so the other is due
        until_now(lambda: not tracker.requests.releasing, "it is released")
        tracker.unfinished["key"] = None
        until_now(lambda: [b"sweep key"] in server.calls, "what was due is done")
        operations = [each for call in list(server.calls) for each in call]
        assert sum(each.startswith(b"renew held") for each in operations) == 1
        assert sum(each.startswith(b"release given") for each in operations) == 1
        store.sync_face().release("held", ("key",))
        store.close()


def test_pauses_grow_for_a_store_that_was_closed_while_a_slot_is_held() -> None:
    """Its lease is renewed as before, and no more often."""
    away = threading.Event()

    def answer(operations: list[bytes], send: Send) -> None:
        if away.is_set():
            raise OSError
        well(operations, send)

    with HostileServer(answer) as server:
        store = RedisStore(server.url)
        listener = NotingListener()
        request = Request("held", (Demand("key", 1),), lease=0.9, listener=listener)
        store.sync_face().acquire(request)
        until_now(lambda: any(call[0].startswith(b"renew") for call in server.calls), "renewed")
        store.close()
        away.set()
        asked = len(server.calls)
        until_now(lambda: listener.losses, "the lease ends")
        # With a look at the clock each 0.02 s it would be a lot more.
        assert 2 <= len(server.calls) - asked <= 24
    store.close()


def test_connections_that_failed_are_none_of_those_in_use(own_server: Process) -> None:
    """However often the server was away."""
    store = RedisStore(own_server.url)
    limiter = SyncLimiter(store)
    own_server.kill()
    for _ in range(150):
        with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
            limiter.try_acquire(LIMIT, CALL)
        assert "Too many" not in str(caught.value)
    own_server.start()
    lease = limiter.try_acquire(LIMIT, CALL)
    assert lease is not None
    lease.release()
    store.close()


def test_more_threads_than_connections_take_turns(own_server: Process) -> None:
    store = RedisStore(own_server.url)
    limiter = SyncLimiter(store)
    limit = ConcurrencyLimit("id", max_concurrent=1000)
    barrier = threading.Barrier(150)
    outcomes: list[object] = []

    def call() -> None:
        barrier.wait(20)
        try:
            with limiter.hold(limit, CALL):
                outcomes.append(None)
        except StoreError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=call) for _ in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == [None] * 150
    store.close()


@pytest.mark.parametrize("failures", [0, 1, 2, 5, 16, 17, 1_000, 10_000])
def test_pauses_grow_to_a_bound(failures: int) -> None:
    for first, longest in ((0.05, 2.0), (0.1, 0.1), (0.001, 60.0)):
        most = min(longest, first * 2.0 ** min(failures, 16))
        for _ in range(20):
            assert most / 2 <= backoff(failures, first, longest) <= most
