"""Forked processes, clients that cannot be used, and a background thread that cannot begin."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_redis import RedisStore
from tests.core._tools import fork

from ._servers import Process, Server
from ._tools import until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=60)
KEY = "one"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("leave", ["with", "release"])
def test_a_child_does_not_give_back_what_its_parent_holds(
    leave: str, server: Server, store: RedisStore
) -> None:
    """Row 30: also where it leaves the block that it was forked in."""
    limiter = SyncLimiter(store)
    with limiter.hold(ONE) as lease:
        child = fork()
        if child:
            os.waitpid(child, 0)
            other = SyncLimiter(server.url)
            assert other.inspect(ONE).in_use == 1
            other.close()
        elif leave == "release":
            lease.release()
            os._exit(0)
    if not child:
        os._exit(0)
    assert limiter.inspect(ONE).in_use == 0


@pytest.mark.parametrize("world", [redis, redis.asyncio])
def test_clients_that_lead_elsewhere_are_refused(world: Any) -> None:
    """Else their settings would be taken for those of a server on this machine."""

    class Own(world.Connection):  # type: ignore[name-defined,misc]
        """What it does, nobody knows."""

    with pytest.raises(ConfigurationError, match="Own"):
        RedisStore(client=world.Redis(connection_pool=world.ConnectionPool(connection_class=Own)))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: RedisStore("redis://u:hunter2#x@h"),
        lambda: RedisStore("redis://u:hunter2/x@h:1"),
        lambda: RedisStore("redis://u:hunter2?x@h:1/a"),
        lambda: RedisStore(client="redis://u:hunter2@h"),  # type: ignore[arg-type]
    ],
)
def test_no_part_of_a_password_is_shown(attempt: Callable[[], object]) -> None:
    """Row 32: also where a URL is not one."""
    with pytest.raises(ConfigurationError) as caught:
        attempt()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    # (Whatever was raised before the attempt began says nothing of it.)
    context = None if caught.value.__suppress_context__ else caught.value.__context__
    assert "hunter2" not in repr(context)


class Refuses(redis.CredentialProvider):
    """Has no password, and raises something of its own."""

    asked = 0

    def get_credentials(self) -> tuple[str]:
        self.asked += 1
        raise LookupError("no password today")


async def test_a_credential_provider_may_raise_what_it_likes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers are notified; nothing goes round in circles, and the renewer goes on."""
    refuses = Refuses()
    client = redis.Redis.from_url(server.url, credential_provider=refuses)
    store = RedisStore(client=client)
    for call in (Limiter(store).acquire(ONE), asyncio.to_thread(SyncLimiter(store).acquire, ONE)):
        with pytest.raises(StoreError, match="no password today") as caught:
            await asyncio.wait_for(call, 5.0)
        assert not isinstance(caught.value, StoreUnavailable)
        assert isinstance(caught.value.__cause__, LookupError)
    assert refuses.asked < 50
    await store.aclose()
    client.close()
    assert "Traceback" not in caplog.text or "LookupError" in caplog.text


async def test_closing_leaves_nobody_behind(server: Server) -> None:
    """Who holds is still renewed until it lets go; who waits asks again."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), lease=0.6)
    store = RedisStore(server.url)
    limiter = Limiter(store)
    lease = await limiter.acquire(limit)
    waiter = asyncio.create_task(limiter.acquire(limit))
    await until(
        lambda: sum(live.waiting for live in store.session.tracker.entries.values()) == 1,
        "it waits",
    )
    await store.aclose()
    await asyncio.sleep(1.5)
    assert not lease.lost
    await lease.release()
    await (await asyncio.wait_for(waiter, 5.0)).release()
    await store.aclose()
    await until(lambda: store.session.renewer._thread is None, "the renewer ends")


def test_a_renewer_that_could_not_begin_begins_with_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = RedisStore(server.url)
    limiter = SyncLimiter(store)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(threading.Thread, "start", too_many)
        with pytest.raises(StoreError, match="no thread can begin"):
            limiter.try_acquire(ONE, {})
        store.close()  # says nothing of a thread that never was
    with limiter.hold(ONE, {}):  # and whoever keeps its lease is there again
        until_now(lambda: store.session.renewer.listening, "the renewer listens")
    store.close()


async def test_a_renewer_without_work_is_silent_while_the_server_is_away(
    own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to renew, so nothing to warn of."""
    caplog.set_level(logging.WARNING)
    store = RedisStore(own_server.url)
    async with Limiter(store).hold(ONE):
        await until(lambda: store.session.renewer.listening, "the renewer listens")
    own_server.kill()
    await until(lambda: not store.session.renewer.listening, "the renewer notices")
    await asyncio.sleep(0.5)
    await store.aclose()
    # Not what a store of an earlier test says still.
    assert [said for said in caplog.messages if f":{own_server.port}/" in said] == []
    own_server.start()


def test_what_passes_by_itself_counts_as_away() -> None:
    """A server that is busy, or no master for a moment, is waited for."""
    from limiter_redis.protocol.errors import store_error

    for said in ("BUSY Redis is busy", "MASTERDOWN Link", "ERR x: -READONLY You can't write"):
        assert isinstance(store_error(redis.ResponseError(said), "here"), StoreUnavailable)
    for said in ("ERR no", "OOM command not allowed", "WRONGTYPE BUSY"):
        assert not isinstance(store_error(redis.ResponseError(said), "here"), StoreUnavailable)
