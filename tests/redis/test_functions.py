"""The script as a library of functions: loaded where it is missing, else called as a script."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from limiter_core import ConcurrencyLimit, Limiter, StoreError, SyncLimiter
from limiter_core.requests import Demand, Granted, Request
from limiter_redis import RedisStore
from limiter_redis.protocol.script import LIBRARY_PREFIX, SCRIPT, Script

from ._servers import OneNode, Process, server_program
from ._tools import until_now
from .test_access_rights import allow

LIMIT = ConcurrencyLimit("key", max_concurrent=1, lease=600)
BY_FUNCTIONS, BY_SCRIPTS = "called by functions>", "called by scripts>"


def libraries(server: Process) -> list[str]:
    """Return the names of our libraries on a server."""
    listed: Any = server.admin.execute_command("FUNCTION", "LIST")
    names = [each["library_name"] if isinstance(each, dict) else each[1] for each in listed]
    return sorted(name for name in names if name.startswith(LIBRARY_PREFIX))


@pytest.fixture
def without_functions() -> Iterator[Process]:
    """A server that has no FCALL, as those before Redis 7."""
    server = Process(server_program(), "--rename-command", "FCALL", "")
    yield server
    server.close()


@pytest.fixture(params=[Process, OneNode], ids=["server", "cluster"])
def mistreated(request: pytest.FixtureRequest) -> Iterator[tuple[Process, str]]:
    """A server that a test may mistreat, alone and as a cluster of one node; and its URL."""
    server = request.param(server_program())
    yield server, getattr(server, "cluster_url", server.url)
    server.close()


def test_a_store_says_how_it_calls_the_script(own_server: Process) -> None:
    store = RedisStore(own_server.url)
    assert repr(store).endswith(" namespace='limiter'>")
    with SyncLimiter(store) as limiter:
        limiter.acquire(LIMIT, {"key": 1}).release()
        assert repr(store).endswith(BY_FUNCTIONS)
    assert libraries(own_server) == [SCRIPT.function]
    assert own_server.commands().get("evalsha", 0) == 0


async def test_a_server_without_functions(without_functions: Process) -> None:
    """As those before Redis 7: scripts are called."""
    store = RedisStore(without_functions.url)
    async with Limiter(store) as limiter, limiter.hold(LIMIT, {"key": 1}):
        assert repr(store).endswith(BY_SCRIPTS)
    with SyncLimiter(store := RedisStore(without_functions.url)) as sync:
        sync.acquire(LIMIT, {"key": 1}).release()
        assert repr(store).endswith(BY_SCRIPTS)


async def test_what_is_found_holds_for_a_connection(own_server: Process) -> None:
    """One call finds it; whoever gets the right has functions with the next connection."""
    own_server.admin.execute_command("ACL", "SETUSER", "default", "-fcall")
    store = RedisStore(own_server.url)
    async with Limiter(store) as limiter:
        for number in range(3):
            async with limiter.hold(LIMIT, {"key": number}):
                assert repr(store).endswith(BY_SCRIPTS)
        assert own_server.admin.info("commandstats")["cmdstat_fcall"]["rejected_calls"] == 1
        own_server.admin.execute_command("ACL", "SETUSER", "default", "+fcall")
        own_server.admin.client_kill_filter(_type="normal", skipme=True)
        async with limiter.hold(LIMIT, {"key": 1}):
            assert repr(store).endswith(BY_FUNCTIONS)


def test_rights_that_change_while_a_program_runs(own_server: Process) -> None:
    """Whoever gets functions in place of scripts has them from the second call on.

    The first are looks, which start no lease renewer: its call might be the first to fail.
    """
    store = RedisStore(allow(own_server, "~{limiter* &limiter:* +@all -fcall"))
    with SyncLimiter(store) as limiter:
        assert limiter.inspect(LIMIT, {"key": 1}).in_use == 0
        assert repr(store).endswith(BY_SCRIPTS)
        rights = ("+fcall", "+function|load", "-evalsha", "-eval")
        own_server.admin.execute_command("ACL", "SETUSER", "limited", *rights)
        with pytest.raises(StoreError, match="evalsha"):
            limiter.inspect(LIMIT, {"key": 1})
        limiter.acquire(LIMIT, {"key": 1}).release()
        assert repr(store).endswith(BY_FUNCTIONS)


def test_a_key_that_is_refused_says_nothing_of_the_form(own_server: Process) -> None:
    """It is one entry in ACL LOG, and not one for each look for limits by name."""
    store = RedisStore(allow(own_server, "~{limiter:*}:* &limiter:* +@all -fcall"))
    with SyncLimiter(store) as limiter:
        for number in range(3):
            store.session.tracker.policies.valid_until = 0.0
            limiter.acquire(LIMIT, {"key": number}).release()
    assert own_server.admin.info("commandstats")["cmdstat_fcall"]["rejected_calls"] < 3


async def test_no_call_notices_that_the_library_is_gone(mistreated: tuple[Process, str]) -> None:
    """It is loaded again; what was on its way meanwhile is done once, and in order."""
    server, url = mistreated
    async with Limiter(RedisStore(url)) as limiter:

        async def many(key: int) -> None:
            async with limiter.hold(LIMIT, {"key": key % 5}):
                pass

        for flush in (server.admin.function_flush, server.admin.script_flush) * 2:
            flush()
            await asyncio.gather(*map(many, range(100)))
        assert [key async for key in limiter.keys()] == []
        assert len(libraries(server)) == 1
        assert server.commands().get("evalsha", 0) == 0


def test_threads_do_not_notice_either(mistreated: tuple[Process, str]) -> None:
    server, url = mistreated
    with SyncLimiter(RedisStore(url)) as limiter:
        for restarts in range(3):
            lease = limiter.acquire(LIMIT, {"key": 1})
            if restarts == 2:
                server.admin.script_flush()
            server.admin.function_flush()
            assert limiter.try_acquire(LIMIT, {"key": 1}) is None
            lease.release()
        assert limiter.inspect(LIMIT, {"key": 1}).in_use == 0


def test_a_restarted_server_gets_the_library_again(own_server: Process) -> None:
    store = RedisStore(own_server.url)
    with SyncLimiter(store) as limiter:
        limiter.acquire(LIMIT, {"key": 1}).release()
        own_server.restart()
        limiter.acquire(LIMIT, {"key": 1}).release()
        assert repr(store).endswith(BY_FUNCTIONS)
    assert libraries(own_server) == [SCRIPT.function]


def test_releases_of_the_package_live_side_by_side(own_server: Process) -> None:
    """Each has a library of its own, and deletes none."""
    newer = Script.of("-- newer\n" + SCRIPT.text.decode())
    with (
        SyncLimiter(RedisStore(own_server.url)) as old,
        SyncLimiter(RedisStore(own_server.url, script=newer)) as new,
    ):
        lease = old.acquire(LIMIT, {"key": 1})
        assert new.try_acquire(LIMIT, {"key": 1}) is None
        lease.release()
        with new.hold(LIMIT, {"key": 1}):
            assert old.try_acquire(LIMIT, {"key": 1}) is None
    assert libraries(own_server) == sorted([SCRIPT.function, newer.function])


@pytest.mark.parametrize("rights", ["+@all", "-eval -evalsha", "-fcall"])
def test_where_memory_is_full(mistreated: tuple[Process, str], rights: str) -> None:
    """Releases, renewals and looks pass, also in one call with others; new calls do not."""
    server, url = mistreated
    server.admin.execute_command("ACL", "SETUSER", "default", *rights.split())
    store = RedisStore(url)
    face = store.sync_face()
    one, two = (Request(name, (Demand("a", 1),), lease=600) for name in ("one", "two"))
    assert isinstance(face.acquire(one), Granted)
    face.acquire(two)
    server.admin.config_set("maxmemory-policy", "noeviction")
    server.admin.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match=r"OOM|maxmemory"):
        face.acquire(Request("three", (Demand("b", 1),)))
    assert face.renew(["one", "two"]).gone == {}
    assert face.inspect("a").in_use == 1
    assert face.release("one")
    assert face.inspect("a").waiting == 0
    assert face.release("two")
    server.admin.config_set("maxmemory", 0)
    assert isinstance(face.acquire(Request("three", (Demand("b", 1),))), Granted)
    face.release("three")
    store.close()


def test_a_replica_can_be_looked_at(own_server: Process) -> None:
    """Where functions are refused as a whole, a script may still read."""
    replica = Process(server_program())
    try:
        with SyncLimiter(own_server.url) as limiter, limiter.hold(LIMIT, {"key": 1}):
            replica.admin.execute_command("REPLICAOF", "127.0.0.1", own_server.port)
            until_now(
                lambda: replica.admin.info("replication")["master_link_status"] == "up",
                "it has the data",
            )
            with SyncLimiter(replica.url) as beside:
                assert beside.inspect(LIMIT, {"key": 1}).in_use == 1
            assert libraries(replica) == [SCRIPT.function]
    finally:
        replica.close()


def test_a_server_gets_no_comments() -> None:
    """Nor has the wheel any, and its script is this one."""
    lines = [line.strip() for line in SCRIPT.library.splitlines()]
    assert [line for line in lines if line.startswith("--")] == []
    assert len(lines) > 1000
