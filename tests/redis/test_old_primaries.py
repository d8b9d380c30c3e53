"""A primary that is not demoted yet, and clients whose connections to it are whole."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from limiter_core import ConcurrencyLimit, Limiter, StoreUnavailable, SyncLimiter
from limiter_redis import RedisStore
from limiter_redis.connection.master import Master
from limiter_redis.connection.master_watch import MasterWatch
from tests.faults._sentinel import SERVICE, Sentinel

from ._fake_sentinels import FakeSentinel
from ._servers import Process, Server, server_program
from ._tools import until, until_now, until_outlived, until_true

LIMIT = ConcurrencyLimit("key", max_concurrent=1, lease=30)
SHORT = ConcurrencyLimit("key", max_concurrent=1, lease=1)


@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_one_that_no_sentinel_can_demote_grants_nothing_to_others(
    sentinel: Sentinel, world: str
) -> None:
    """S3: the Sentinels have named another, and no connection ended."""
    thread = asyncio.to_thread
    store = RedisStore(sentinel.url)
    limiter, threads = Limiter(store), SyncLimiter(store)
    [old] = sentinel.primaries()

    async def is_granted(key: str) -> bool:
        if world == "threads":
            held = await thread(threads.try_acquire, LIMIT, {"key": key})
            if held is not None:
                await thread(held.release)
            return held is not None
        lease = await limiter.try_acquire(LIMIT, {"key": key})
        if lease is not None:
            await lease.release()
        return lease is not None

    assert await is_granted("taken")
    with sentinel.not_demoted(old):
        await thread(sentinel.failover_by_order)
        async with Limiter(sentinel.url).hold(LIMIT, {"key": "taken"}):

            async def is_refused() -> bool:
                return not await is_granted("taken")

            await until_true(is_refused, "the new primary is asked")
            assert not await is_granted("taken")
        role = await thread(old.admin.role)
        assert role[0] == "master"
    await store.aclose()


def test_a_sentinel_that_was_cut_off_from_the_others_is_not_believed() -> None:
    """S3: it is the first in the URL, and names the master of before."""
    with (
        closing(Process(server_program())) as old,
        closing(Process(server_program())) as new,
        FakeSentinel(old.port, epoch=1) as cut_off,
        FakeSentinel(new.port, epoch=2) as other,
        closing(RedisStore(_url(cut_off, other))) as store,
    ):
        limiter = SyncLimiter(store)

        def is_asked() -> bool:
            limiter.acquire(LIMIT, {"key": 1}).release()
            return new.calls() > 0

        until_now(is_asked, "the new master is asked")
        calls = old.calls()
        assert is_asked()
        assert old.calls() == calls


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux does")
@pytest.mark.parametrize("behaviour", ["silence", "a byte now and then", "garbage", "a map"])
async def test_sentinels_that_misbehave_cost_no_lease_and_no_call(
    server: Server, behaviour: str
) -> None:
    """Once there is a connection; and when the store is closed nothing is left of them."""
    port = int(server.admin.connection_pool.connection_kwargs["port"])
    threads, descriptors = _threads(), _descriptors()
    with FakeSentinel(port) as one, FakeSentinel(port) as other:
        store = RedisStore(_url(one, other))
        async with Limiter(store) as limiter:
            lease = await limiter.acquire(SHORT, {"key": "long"})
            await until_outlived(lease, 1.0)
            await until(lambda: store.session.renewer.listening, "all connections are there")
            one.behaves = other.behaves = behaviour
            await until_outlived(lease, 1.0)
            async with limiter.hold(LIMIT, {"key": "short"}, timeout=1.0):
                pass
            await lease.release()
        await store.aclose()
        until_now(lambda: _threads() <= threads, "no thread is left")
    until_now(lambda: _descriptors() <= descriptors, "no socket is left")


def test_a_sentinel_that_was_cut_off_is_not_believed_when_the_others_fall_silent() -> None:
    master, looks = Master(), list[Exception | None]()
    with FakeSentinel(1, epoch=4) as cut_off, FakeSentinel(2, epoch=5) as other:
        sentinels = [{"host": "127.0.0.1", "port": each.port} for each in (cut_off, other)]
        watch = MasterWatch(SERVICE, sentinels, master, lambda: 0.4, looks.append)
        watch.ensure_running()
        until_now(lambda: master.address == ("127.0.0.1", 2), "the latest configuration counts")
        other.behaves = "garbage"
        until_now(lambda: any(looks), "it says that none answers who knows better")
        watch.stop()
        watch.join(5)
    assert master.address == ("127.0.0.1", 2)
    assert sentinels[0]["port"] == other.port


@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_sentinels_that_hang_up_are_taken_for_no_proxy(server: Server, world: str) -> None:
    """They are asked once more when the connection to the master is open, amid its commands."""
    port = int(server.admin.connection_pool.connection_kwargs["port"])
    with _AnswersOnce(port) as sentinel:
        store = RedisStore(_url(sentinel))
        threads, limiter = SyncLimiter(store), Limiter(store)

        async def call() -> object:
            if world == "threads":
                return await asyncio.to_thread(threads.try_acquire, LIMIT, {"key": 1})
            return await limiter.try_acquire(LIMIT, {"key": 1})

        with pytest.raises(StoreUnavailable, match="no Sentinel names the master") as caught:
            await call()
        await store.aclose()
    assert "closed by server" in str(caught.value)
    assert "proxy" not in str(caught.value)


class _AnswersOnce(FakeSentinel):
    def _port(self) -> int:
        if self.named == 0:
            raise OSError
        port, self.named = self.named, 0
        return port


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_ended_by_a_failure_is_started_again() -> None:
    looked: list[Exception | None] = []

    def fails_once(trouble: Exception | None) -> None:
        looked.append(trouble)
        if len(looked) == 1:
            raise RuntimeError("of a handler of logging")

    with FakeSentinel(1) as sentinel:
        address = {"host": "127.0.0.1", "port": sentinel.port}
        watch = MasterWatch(SERVICE, [address], Master(), lambda: 0.4, fails_once)

        def goes_on() -> bool:
            watch.ensure_running()  # as the renewer does in each of its turns
            return len(looked) > 2

        until_now(goes_on, "it looks again")
        watch.stop()
        watch.join(5)


def _url(*sentinels: FakeSentinel) -> str:
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}"


def _threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("limiter-")}


def _descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])
