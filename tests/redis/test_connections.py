"""How the store is connected: users' clients, event loops, forks, rights, secrets, the end."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    WaitTimeout,
)
from limiter_core.requests import Demand, Granted, Notice, Presence, Queued, Request
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore
from limiter_redis.protocol.script import SCRIPT
from tests.core._tools import fork

from ._servers import PATIENCE, Process, Server
from ._tools import until, until_now

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


# -- clients of users ------------------------------------------------------------------------------


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
    """S6: the keeper's connection speaks what the URL says."""
    url = f"{server.url}?protocol={protocol}&decode_responses=True"
    here, there = RedisStore(url), RedisStore(url)
    async with Limiter(here).hold(ONE):
        waiter = asyncio.create_task(Limiter(there).acquire(ONE))
        await until(lambda: there.session.renewer.listening, "the other store listens")
        await until_waiting(here, 1)
    lease = await asyncio.wait_for(waiter, 2.0)
    await lease.release()
    await here.aclose()
    await there.aclose()


async def until_waiting(store: RedisStore, count: int) -> None:
    key = await Limiter(store).key_for(ONE)
    give_up_at = asyncio.get_running_loop().time() + PATIENCE
    while (await store.async_face().inspect(key)).waiting != count:
        assert asyncio.get_running_loop().time() < give_up_at, f"{count} never waited"
        await asyncio.sleep(0.005)


# -- pools -----------------------------------------------------------------------------------------


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


async def test_commands_per_release_do_not_grow_with_the_waiters(server: Server) -> None:
    """Row 24: no herd."""

    async def calls_per_release(waiters: int) -> int:
        here, there = RedisStore(server.url), RedisStore(server.url)
        holder = await Limiter(here).acquire(ONE)
        limiter = Limiter(there)
        waiting = [asyncio.create_task(limiter.acquire(ONE)) for _ in range(waiters)]
        await until_waiting(here, waiters)
        await until(lambda: there.session.renewer.listening, "the other store listens")
        # Tickets are renewed every few seconds at the latest; not now.
        await asyncio.sleep(0.3)
        server.admin.config_resetstat()
        await holder.release()
        lease = await asyncio.wait_for(waiting[0], 5.0)
        counted = server.commands()
        for task in waiting[1:]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await lease.release()
        await here.aclose()
        await there.aclose()
        return counted.get("evalsha", 0)

    few, many = await calls_per_release(2), await calls_per_release(200)
    assert many <= few + 3


# -- event loops and processes ---------------------------------------------------------------------


def test_a_second_event_loop(server: Server) -> None:
    """Row 31: two `asyncio.run` with one limiter, which nobody closed in between."""
    store = RedisStore(server.url)
    limiter = Limiter(store)

    async def use() -> None:
        async with limiter.hold(ONE):
            with pytest.raises(WaitTimeout):
                await asyncio.create_task(limiter.acquire(ONE, timeout=0.05))
        assert [key async for key in limiter.keys()] == []

    for _ in range(3):
        asyncio.run(use())
    assert len(store.session._async_transports) <= 1
    store.close()


def test_event_loops_of_several_threads(server: Server) -> None:
    """S6: all loops of a process share the slots, and hear through one keeper."""
    before = set(threading.enumerate())  # the keeper of a store that was closed may still end
    store = RedisStore(server.url)
    limiter = Limiter(store)
    recorder = OverlapRecorder()

    async def use() -> None:
        async def call() -> None:
            async with limiter.hold(ONE):
                with recorder.holding("one", limit=1):
                    await asyncio.sleep(0)

        await asyncio.gather(*(call() for _ in range(25)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asyncio.run(use()), range(8)))
    recorder.assert_within("one", 1)
    made = set(threading.enumerate()) - before
    assert sum(thread.name == "limiter-lease-renewer" for thread in made) == 1
    store.close()


def test_a_waiter_whose_event_loop_ended_is_withdrawn(server: Server) -> None:
    """S15; row 31: `asyncio.run` cancels it, and its ticket is given back before the loop ends."""
    store = RedisStore(server.url)
    limiter = Limiter(store)
    holder = SyncLimiter(store).acquire(ONE)

    async def leave_a_waiter() -> None:
        task = asyncio.create_task(limiter.acquire(ONE))
        await until_waiting(store, 1)
        assert not task.done()

    asyncio.run(leave_a_waiter())
    assert SyncLimiter(store).inspect(ONE).waiting == 0
    holder.release()
    store.close()


def test_a_holder_whose_event_loop_ended_gives_back(server: Server) -> None:
    """S15; row 31: a task that is still in its body when `asyncio.run` ends."""
    store = RedisStore(server.url)
    limiter = Limiter(store)

    async def leave_a_holder() -> None:
        began = asyncio.Event()

        async def hold() -> None:
            async with limiter.hold(ONE):
                began.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await began.wait()
        assert not task.done()

    asyncio.run(leave_a_holder())
    assert SyncLimiter(store).inspect(ONE).in_use == 0
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_neither_renews_nor_releases(server: Server) -> None:
    """Row 30: it has connections of its own, and none of its parent's leases."""
    store = RedisStore(server.url)
    limiter = SyncLimiter(store)
    lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
    until_now(lambda: store.session.renewer.listening, "the keeper runs")
    read, write = os.pipe()
    child = fork()
    if child == 0:
        try:
            held = len(store.session.tracker.entries)
            keepers = sum(each.name == "limiter-lease-renewer" for each in threading.enumerate())
            taken = limiter.try_acquire(ONE) is not None
            other = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("two")))
            own = other.fencing_token > lease.fencing_token
            lease.release()  # of the parent: not the child's to give back
            os.write(write, repr((held, keepers, taken, own)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == repr((0, 0, False, True))
    assert not lease.lost
    lease.release()
    assert limiter.inspect(ONE).in_use == 0
    store.close()


PROGRAMS = {
    "threads": """
        from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
        limiter = SyncLimiter(sys.argv[1])
        with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
            pass
    """,
    "threads-still-holding": """
        from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
        limiter = SyncLimiter(sys.argv[1])
        lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
    """,
    "asyncio": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        async def main():
            async with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
                pass
            print([key async for key in limiter.keys()])
        asyncio.run(main())
    """,
    "asyncio-still-holding": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        async def main():
            return await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
        lease = asyncio.run(main())
    """,
    "asyncio-interrupted": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        limit = ConcurrencyLimit(LIMIT_BY.constant("one"))
        async def wait():
            async with limiter.hold(limit):
                await asyncio.Event().wait()
        async def main():
            async with asyncio.timeout(0.3):
                await asyncio.gather(*(wait() for _ in range(50)))
        try:
            asyncio.run(main())
        except TimeoutError:
            pass
    """,
    "never-used": """
        from limiter_core import Limiter, SyncLimiter
        Limiter(sys.argv[1]), SyncLimiter(sys.argv[1])
    """,
}


# What asyncio's debug mode says of a busy machine is no fault of the program.
QUIET = """\
import logging, sys
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_cleanly(program: str, server: Server) -> None:
    """No warning, no traceback, no thread that keeps it alive; also if it never closes anything."""
    text = QUIET + textwrap.dedent(PROGRAMS[program])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", text, server.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if not program.endswith("holding"):
        limiter = SyncLimiter(server.url)
        assert list(limiter.keys()) == []
        limiter.close()


@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="needs trio")
def test_trio_is_told_what_to_do_instead(server: Server) -> None:
    """redis-py knows asyncio only."""
    import trio

    async def main() -> None:
        limiter = Limiter(server.url)
        with pytest.raises(ConfigurationError, match="SyncLimiter"):
            async with limiter.hold(ONE):
                pass

    trio.run(main)


# -- rights ----------------------------------------------------------------------------------------

RIGHTS = (
    "resetkeys ~{limiter* resetchannels &limiter:* -@all"
    " +evalsha +eval +time +type +exists +get +set +del +persist +pexpire +pexpireat"
    " +hget +hset +hdel +hmget +hkeys"
    " +zadd +zrem +zremrangebyscore +zrange +zrangebyscore +zscore +zunionstore +rename"
    " +publish +subscribe +unsubscribe"
    " +scan +sadd +smembers +expire +ping +select +hello +client|setinfo"
)
"""What the user of a limiter has to be allowed, and no more; see docs/redis-acl."""


def allow(server: Process, rights: str) -> str:
    user = ("limited", "reset", "on", ">s3cret")
    server.admin.execute_command("ACL", "SETUSER", *user, *rights.split())
    return server.url.replace("redis://", "redis://limited:s3cret@")


async def use_everything(url: str, namespace: str = "limiter") -> None:
    """Do all that the two limiters can do, and what adapters do."""
    here, there = (RedisStore(url, namespace=namespace) for _ in range(2))
    face = here.sync_face()
    holder = SyncLimiter(here).acquire(ONE)
    waiter = asyncio.create_task(Limiter(there).acquire(ONE))
    await until_waiting(here, 1)
    await until(lambda: there.session.renewer.listening, "the other store listens")
    key = await Limiter(there).key_for(ONE)
    face.pause(key)
    face.set_limit(key, 2)
    face.set_limit(key, 1)
    face.resume(key)
    face.reset_limit(key)
    assert face.inspect(key).waiting == 1
    holder.release()
    lease = await asyncio.wait_for(waiter, 5.0)
    job = Request("job", (Demand(key, 1),), payload=b"job")
    assert isinstance(face.acquire(job), Queued)
    assert set(face.renew(["job", "nobody"]).gone) == {"nobody"}
    face.sweep()
    await there.async_face().sweep()
    assert face.evict(lease.id)
    assert isinstance(face.acquire(job), Granted)
    assert face.release("job")
    face.acquire(Request("holder", (Demand(key, 1),)))
    ours, theirs = Presence("queue:ours", "one"), Presence("queue:theirs", "one")
    for presence in (ours, theirs):
        name = f"{presence.name}-{lease.id}"
        face.acquire(Request(name, (Demand(key, 1),), payload=b"job", presence=presence))
        face.sweep(presence)
        face.sweep(presence._replace(leaving=True))
    assert {each.name for each in face.inspect(key).dormant} == {"queue:ours", "queue:theirs"}
    assert face.evict_waiter(f"queue:theirs-{lease.id}")
    face.release("holder")
    face.sweep(theirs)
    face.sweep(ours)
    assert face.release(f"queue:ours-{lease.id}")
    for resolution in ("keep_latest", "cancel_running", "priority"):
        demand = Demand(key, 1, on_conflict=type(ONE.on_conflict)(resolution), group="g")
        for number in range(3):
            face.acquire(Request(f"{resolution}-{number}", (demand, Demand("one/b", 1))))
        for number in range(3):
            face.release(f"{resolution}-{number}")
    assert list(face.keys()) == []
    await here.aclose()
    await there.aclose()


async def test_the_rights_that_a_limiter_needs(own_server: Process) -> None:
    """Commands, keys and channels: with these everything works, also after SCRIPT FLUSH."""
    url = allow(own_server, RIGHTS)
    await use_everything(url)
    own_server.admin.script_flush()
    await use_everything(url)


async def test_no_other_key_or_channel_is_touched(own_server: Process) -> None:
    """The patterns alone are no hindrance where all commands are allowed."""
    await use_everything(allow(own_server, "~{limiter* &limiter:* +@all"))


def test_no_right_is_asked_for_in_vain() -> None:
    """What the script calls, what the store calls beside it, and what a connection begins with."""
    in_script = {name.lower() for name in re.findall(r"call\('(\w+)'", SCRIPT.text.decode())}
    beside_it = {
        "evalsha",
        "eval",
        "subscribe",
        "unsubscribe",
        "scan",
        "sadd",
        "smembers",
        "expire",
    }
    connection = {"ping", "select", "hello", "client|setinfo"}
    asked_for = {word[1:] for word in RIGHTS.split() if word.startswith("+")}
    assert asked_for == in_script - {"spublish"} | beside_it | connection


def test_a_missing_right_is_an_error_of_the_store(own_server: Process) -> None:
    """It is no outage that one could wait out."""
    url = allow(own_server, RIGHTS.replace(" +evalsha +eval", ""))
    store = RedisStore(url)
    with pytest.raises(StoreError) as caught:
        SyncLimiter(store).acquire(ONE)
    assert not isinstance(caught.value, StoreUnavailable)
    assert isinstance(caught.value.__cause__, redis.RedisError)
    store.close()


# -- secrets ---------------------------------------------------------------------------------------


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


# -- errors ----------------------------------------------------------------------------------------


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


def test_a_url_may_name_the_namespace(server: Server) -> None:
    """So that the operator's command sees what a framework keeps in one of its own."""
    shop, other = SyncLimiter(f"{server.url}?namespace=shop.limits"), SyncLimiter(server.url)
    with shop, other, shop.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
        assert list(shop.keys()) == ["one"]
        assert list(other.keys()) == []
        assert list(server.admin.scan_iter("{shop.limits:*")) == ["{shop.limits:one}:state"]
    with pytest.raises(ConfigurationError, match="a namespace is"):
        SyncLimiter(f"{server.url}?namespace=a{{b")
