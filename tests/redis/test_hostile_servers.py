"""Servers that answer what no Redis answers, late, or never: every call ends, in its own error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from limiter_core import (
    ConcurrencyLimit,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
    WaitTimeout,
)
from limiter_redis import RedisStore

from ._hostile_server import HOSTILE, ONE_OF_EACH, Answer, HostileServer, Send, well
from ._servers import Process, Server
from ._tools import until_now, until_true

ENDS_IN = 10.0
"""Seconds in which a call ends that would take a minute without its own timeout."""

BY_ID = ConcurrencyLimit("id", timeout=0.5)
LONGER = ConcurrencyLimit("id", timeout=1.5)
UNBOUND = ConcurrencyLimit("id")
PATIENT = "socket_timeout=60"


EACH_REPLY = pytest.mark.parametrize(
    "reply",
    [
        each if each in ONE_OF_EACH else pytest.param(each, marks=pytest.mark.exhaustive)
        for each in HOSTILE
    ],
)


@pytest.fixture(params=["server", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    """One server, or a cluster."""
    return str(request.param)


def url_of(server: HostileServer, kind: str, options: str = PATIENT) -> str:
    return f"{server.url if kind == 'server' else server.cluster_url}?{options}"


def in_a_thread(work: Callable[[], object]) -> Any:
    """Return what some work returns, or raises; fail if it does not end."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ENDS_IN)
    assert outcome, f"the call did not end in {ENDS_IN} s"
    return outcome[0]


async def give_up(store: RedisStore) -> None:
    """Close a store without the patience it has with what was asked before."""
    store.session.tracker.requests.clear()  # else it goes on, and warns, amid later tests
    store.session.renewer.stop()
    transport: Any = store.session.async_transport()
    await transport._lifetime.aclose()


async def is_free(limiter: Limiter, key: str) -> bool:
    return not (await limiter.inspect(key)).in_use


async def waits_on(limiter: Limiter, key: str) -> bool:
    return (await limiter.inspect(key)).waiting > 0


async def is_left(limiter: Limiter, key: str) -> bool:
    return not (await limiter.inspect(key)).waiting


# -- replies that cannot be read -------------------------------------------------------------------


@EACH_REPLY
async def test_a_task_gets_out(reply: str, kind: str) -> None:
    with HostileServer(HOSTILE[reply]) as server:
        store = RedisStore(url_of(server, kind))
        async with asyncio.timeout(ENDS_IN):
            with pytest.raises(StoreError) as caught:
                await Limiter(store).acquire(BY_ID, {"id": 1})
        assert caught.value.__cause__ is not None or "id=1" in str(caught.value)
        await give_up(store)


@EACH_REPLY
def test_a_thread_gets_out(reply: str, kind: str) -> None:
    with HostileServer(HOSTILE[reply]) as server:
        store = RedisStore(url_of(server, kind))
        outcome = in_a_thread(lambda: SyncLimiter(store).acquire(BY_ID, {"id": 1}))
        assert isinstance(outcome, StoreError), outcome
        store.session.tracker.requests.clear()
        store.close()


class NoFunctions(HostileServer):
    """What answers FCALL with an error."""

    says = ""

    def _reply(self, words: list[bytes], send: Send) -> None:
        if words[0] == b"FCALL":
            send(f"-ERR {self.says}\r\n".encode())
        else:
            super()._reply(words, send)


@pytest.mark.parametrize(
    "says",
    [
        "unknown command 'FCALL', with args beginning with: 'limiter'",
        "unknown command `FCALL`, with args beginning with: `limiter`, ",
        "Command is not available: 'FCALL'. See the list of commands.",
        "unsupported command 'fcall'",
        "command FCALL is not supported",
        "command 'fcall' is not allowed",
    ],
)
async def test_scripts_are_called_where_there_are_no_functions(kind: str, says: str) -> None:
    """Also behind a proxy, and at a service, each of which has words of its own."""
    with NoFunctions(well) as server:
        server.says = says
        async with Limiter(store := RedisStore(url_of(server, kind))) as limiter:
            await (await limiter.acquire(BY_ID, {"id": 1})).release()
            assert repr(store).endswith(" called by scripts>")


class NoLibrary(HostileServer):
    """A server that has no function, and answers FUNCTION LOAD with what cannot be read."""

    def _reply(self, words: list[bytes], send: Send) -> None:
        replies = {b"FCALL": b"-ERR Function not found\r\n", b"FUNCTION": b"?\r\n"}
        if words[0] in replies:
            send(replies[words[0]])
        else:
            super()._reply(words, send)


async def test_a_task_gets_out_where_the_script_cannot_be_loaded(kind: str) -> None:
    """It tries twice, and not for ever."""
    with NoLibrary(well) as server:
        store = RedisStore(url_of(server, kind))
        async with asyncio.timeout(ENDS_IN):
            with pytest.raises(StoreError, match="no reply begins with"):
                await Limiter(store).acquire(BY_ID, {"id": 1})
        assert server.connections < 20
        await give_up(store)


def bad_for(operations_of: bytes, otherwise: Answer, bad: Answer) -> Answer:
    def answer(operations: list[bytes], send: Send) -> None:
        one_is = any(operations_of in each for each in operations)
        (bad if one_is else otherwise)(operations, send)

    return answer


@pytest.mark.parametrize(
    "reply",
    ["an array", "a number", "nothing", "no text", "garbage", "a wrong length", "an error"],
)
async def test_others_of_the_batch_are_not_touched(reply: str, kind: str) -> None:
    with HostileServer(bad_for(b"id=bad", well, HOSTILE[reply])) as server:
        store = RedisStore(url_of(server, kind, "socket_timeout=5"))
        limiter = Limiter(store)
        limit = ConcurrencyLimit("id", scope="same", timeout=ENDS_IN)
        async with asyncio.timeout(ENDS_IN):
            outcomes = await asyncio.gather(
                *(limiter.acquire(limit, {"id": name}) for name in ("a", "bad", "b", "c")),
                return_exceptions=True,
            )
        good = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(good) == 3, outcomes
        assert isinstance(outcomes[1], StoreError)
        assert "id=bad" in str(outcomes[1])
        for lease in good:
            await lease.release()
        await give_up(store)


async def test_replies_that_nobody_asked_for_are_nobody_elses(kind: str) -> None:
    """They would be taken for the next one's."""

    def too_many(operations: list[bytes], send: Send) -> None:
        parts: list[bytes] = []
        well(operations, parts.append)
        send(parts[0] + b"$23\r\nrefused id=1 1 1 - full\r\n")

    with HostileServer(too_many) as server:
        store = RedisStore(url_of(server, kind, "socket_timeout=5"))
        limiter, sync = Limiter(store), SyncLimiter(store)
        for _ in range(5):
            async with limiter.hold(BY_ID, {"id": 1}) as lease:
                assert lease.fencing_token == 7
            sync_lease = await asyncio.to_thread(sync.acquire, BY_ID, {"id": 1})
            assert sync_lease.fencing_token == 7
            await asyncio.to_thread(sync_lease.release)
        await store.aclose()


@pytest.fixture
def spoilt(server: Server) -> Iterator[Server]:
    """A server on which something else wrote to a limiter's keys."""
    clients: Any = redis.Redis
    admin = clients.from_url(server.url)
    now = int(time.time() * 1e6)
    record = b"\xffid %d 1 1 %d %d 0 30000000 3b99dfc6fcbe5b1e - w -"
    admin.set("{limiter:id=text}:state", record % (now + 60_000_000, now, now), ex=60)
    admin.set("{limiter:id=words}:state", "what is this", ex=60)
    admin.hset("{limiter:id=hash}:state", mapping={"used": 1, "token": 5, "h:a": "1 2"})
    admin.zadd("{limiter:id=hash}:ends", {"ha": 9e15})
    admin.lpush("{limiter:id=list}:state", "x")
    for name in ("{limiter:id=hash}:state", "{limiter:id=hash}:ends", "{limiter:id=list}:state"):
        admin.expire(name, 60)
    admin.set(b"{limiter:id=\xff}:state", "x", ex=60)
    yield server
    admin.delete(b"{limiter:id=\xff}:state")
    admin.close()


SPOILT = ["text", "hash"]


async def test_a_record_that_cannot_be_read_names_its_key(spoilt: Server) -> None:
    store = RedisStore(spoilt.url)
    limiter, sync = Limiter(store), SyncLimiter(store)
    for name in SPOILT:
        innocent = asyncio.create_task(limiter.acquire(BY_ID, {"id": "innocent"}))
        with pytest.raises(StoreError, match=f"id={name}"):
            await limiter.inspect(f"id={name}")
        await (await innocent).release()
        with pytest.raises(StoreError, match=f"id={name}"):
            await asyncio.to_thread(sync.inspect, f"id={name}")
    await store.aclose()


class SilentScan(HostileServer):
    """What never answers SCAN."""

    def _reply(self, words: list[bytes], send: Send) -> None:
        if words[0] != b"SCAN":
            super()._reply(words, send)


async def test_a_list_that_gets_no_answer_says_so() -> None:
    with SilentScan(well) as server:
        store = RedisStore(f"{server.url}?socket_timeout=0.5")
        with pytest.raises(StoreUnavailable, match="Timeout reading from the server"):
            [key async for key in Limiter(store).keys()]
        outcome = in_a_thread(lambda: list(SyncLimiter(store).keys()))
        assert isinstance(outcome, StoreUnavailable)
        assert "Timeout reading from the server" in str(outcome)
        await store.aclose()


async def test_records_that_cannot_be_read_end_no_list(spoilt: Server) -> None:
    """Neither the keys, nor the search for a lease among them."""
    store, other = RedisStore(spoilt.url), RedisStore(spoilt.url)
    limiter = Limiter(store)
    lease = await limiter.acquire(BY_ID, {"id": "mine"})
    keys = [key async for key in Limiter(other).keys()]
    assert "id=mine" in keys
    assert set(keys) == set(SyncLimiter(other).keys())
    assert await Limiter(other).evict(lease.id)
    second = await limiter.acquire(BY_ID, {"id": "other"})
    assert await asyncio.to_thread(SyncLimiter(other).evict, second.id)
    await lease.release()
    await second.release()
    await store.aclose()
    await other.aclose()


async def test_a_scope_that_is_none_ends_no_sweep(server: Server) -> None:
    store = RedisStore(server.url)
    for member in (b"\xff\xfe", "a b", "a\r\nb", "ü", "{x}", ""):
        server.admin.sadd(store.session.tracker.keyspace.scopes, member)
    server.admin.expire(store.session.tracker.keyspace.scopes, 60)
    await store.async_face().sweep()
    await asyncio.to_thread(store.sync_face().sweep)
    await store.aclose()


# -- a timeout is kept -----------------------------------------------------------------------------


async def test_a_frozen_server_keeps_no_task_beyond_its_timeout(own_server: Process) -> None:
    store = RedisStore(f"{own_server.url}?{PATIENT}")
    limiter = Limiter(store)
    await (await limiter.acquire(BY_ID, {"id": 1})).release()
    held = await limiter.acquire(BY_ID, {"id": "held"})
    with own_server.frozen():
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await limiter.acquire(BY_ID, {"id": 2})
        assert time.monotonic() - start < ENDS_IN
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await limiter.acquire(UNBOUND, {"id": 3})
        assert time.monotonic() - start < ENDS_IN
    other = Limiter(RedisStore(own_server.url))
    for key in ("id=2", "id=3"):
        # What was granted to those who had gone is given back, long before its lease ends.
        await until_true(partial(is_free, other, key), f"{key} is given back")
    assert not held.lost
    await held.release()
    await store.aclose()


def test_a_frozen_server_keeps_no_thread_beyond_its_timeout(own_server: Process) -> None:
    store, other = RedisStore(f"{own_server.url}?{PATIENT}"), RedisStore(own_server.url)
    limiter = SyncLimiter(store)
    limiter.acquire(BY_ID, {"id": 1}).release()
    with own_server.frozen():
        outcome = in_a_thread(lambda: limiter.acquire(BY_ID, {"id": 2}))
        assert isinstance(outcome, StoreUnavailable), outcome
        # Also where a connection has to be opened for it.
        outcome = in_a_thread(lambda: SyncLimiter(other).acquire(BY_ID, {"id": 3}))
        assert isinstance(outcome, StoreUnavailable), outcome
    looks = SyncLimiter(RedisStore(own_server.url))
    for key in ("id=2", "id=3"):
        until_now(lambda key=key: not looks.inspect(key).in_use, f"{key} is given back")
    store.close()
    other.close()


async def test_a_waiter_times_out_while_the_server_is_frozen(
    own_server: Process,
) -> None:
    store = RedisStore(f"{own_server.url}?{PATIENT}")
    limiter = Limiter(store)
    held = await limiter.acquire(BY_ID, {"id": 1})
    waiter = asyncio.create_task(limiter.acquire(LONGER, {"id": 1}))
    await until_true(partial(waits_on, limiter, "id=1"), "one waits")
    with own_server.frozen():
        async with asyncio.timeout(ENDS_IN):
            with pytest.raises(WaitTimeout):
                await waiter
    await until_true(partial(is_left, limiter, "id=1"), "its ticket is given back")
    await held.release()
    await store.aclose()


def test_a_request_that_arrives_after_its_release_takes_nothing(server: Server) -> None:
    """It lay in the buffer of a connection that was given up."""
    store = RedisStore(server.url)
    limiter = SyncLimiter(store)
    lease = limiter.acquire(BY_ID, {"id": 1})
    (live,) = store.session.tracker.entries.values()
    late = live.request._replace(id="late")
    lease.release()
    store.session.tracker.begin(late, time.monotonic())
    store.session.tracker.withdraw(late)
    store.session.abandon("late", "id=1")
    until_now(lambda: not store.session.tracker.requests, "it is released")
    store.sync_face().acquire(late)
    assert limiter.inspect("id=1").in_use == 0
    store.close()
