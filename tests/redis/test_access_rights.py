"""The rights of a user of the server (ACL) that a limiter needs, and what it does without them."""

from __future__ import annotations

import asyncio
import re

import pytest
import redis
import redis.asyncio

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
)
from limiter_core.requests import Demand, Granted, Presence, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.protocol.script import SCRIPT

from ._servers import Process
from ._tools import until, until_now, until_waiting

KEY = "scope/key"
ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


RIGHTS = (
    "resetkeys ~{limiter* resetchannels &limiter:* -@all"
    " +fcall +function|load +evalsha +eval"
    " +time +type +exists +get +set +del +persist +pexpire +pexpireat"
    " +hget +hset +hdel +hmget +hkeys"
    " +zadd +zrem +zremrangebyscore +zrange +zrangebyscore +zscore +zunionstore +rename"
    " +publish +subscribe +unsubscribe"
    " +hscan +lpush +ltrim +lrange"
    " +pubsub|channels +scan +sadd +smembers +expire +ping +select +hello +client|setinfo"
)
"""What the user of a limiter has to be allowed, and no more; see docs/reference/redis-layout.md."""

WITHOUT_FUNCTIONS = RIGHTS.replace(" +fcall +function|load", "")
"""What is enough, at the price of a slower way."""

WITHOUT_SCRIPTS = RIGHTS.replace(" +evalsha +eval", "")
"""What is enough on a server that has functions and memory, and is no replica."""

NO_LOADING = RIGHTS.replace(" +function|load", "")
"""As if an operator had to load the library."""


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
    await until_waiting(Limiter(here), ONE, 1)
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
    use_policies(SyncLimiter(here), key)
    await here.aclose()
    await there.aclose()


def use_policies(limiter: SyncLimiter, key: str) -> None:
    """Do what an operator does with the limits of a name."""
    face = limiter._face
    limiter.pause_name("billing", lasts=60)
    limiter.set_name_limit("billing", 2)
    assert len(limiter.policies()) == 2
    job = Request("policy-job", (Demand(key, 1, name="billing"),), payload=b"job")
    assert isinstance(face.acquire(job), Queued)
    limiter.resume_name("billing")
    assert isinstance(face.acquire(job), Granted)
    assert face.release("policy-job")
    limiter.reset_name_limit("billing")
    assert len(limiter.changes()) >= 4


def test_old_rights_are_enough_for_calls_and_for_limits_by_name(own_server: Process) -> None:
    """Those of before: only the log needs more, and the applying to those who wait."""
    old = RIGHTS.replace(" +hscan +lpush +ltrim +lrange", "")
    with SyncLimiter(allow(own_server, old)) as limiter:
        limiter.pause_name("one")
        assert limiter.try_acquire(ONE) is None
        limiter.resume_name("one")
        with limiter.hold(ONE):
            limiter.set_limit("one", 2)
            limiter.reset_limit("one")


@pytest.mark.parametrize(
    ("rights", "way"),
    [
        (RIGHTS, "functions"),
        (WITHOUT_SCRIPTS, "functions"),
        (WITHOUT_FUNCTIONS, "scripts"),
        (NO_LOADING, "scripts"),
    ],
    ids=["all", "without scripts", "without functions", "without loading"],
)
async def test_the_rights_that_a_limiter_needs(own_server: Process, rights: str, way: str) -> None:
    """Commands, keys and channels: with these everything works, also after what was loaded went."""
    url = allow(own_server, rights)
    await use_everything(url)
    own_server.admin.script_flush()
    own_server.admin.function_flush()
    await use_everything(url)
    with SyncLimiter(store := RedisStore(url)) as limiter:
        limiter.acquire(ONE).release()
        assert repr(store).endswith(f" called by {way}>")


async def test_no_other_key_or_channel_is_touched(own_server: Process) -> None:
    """The patterns alone are no hindrance where all commands are allowed."""
    await use_everything(allow(own_server, "~{limiter* &limiter:* +@all"))


def test_no_right_is_asked_for_in_vain() -> None:
    """What the script calls, what the store calls beside it, and what a connection begins with."""
    text = SCRIPT.text.decode().replace("'PUBSUB', 'CHANNELS'", "'PUBSUB|CHANNELS'")
    in_script = {name.lower() for name in re.findall(r"call\('([\w|]+)'", text)}
    beside_it = {
        "fcall",
        "function|load",
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
    url = allow(own_server, WITHOUT_FUNCTIONS.replace(" +evalsha +eval", ""))
    store = RedisStore(url)
    with pytest.raises(StoreError) as caught:
        SyncLimiter(store).acquire(ONE)
    assert not isinstance(caught.value, StoreUnavailable)
    assert isinstance(caught.value.__cause__, redis.RedisError)
    store.close()


def test_a_channel_that_is_refused_beside_one_that_is_not(
    own_server: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one outage: one warning, and attempts that become rare."""
    store = RedisStore(allow(own_server, "~* +@all resetchannels &*:process:*"))
    face = store.sync_face()
    face.on_notice(lambda _: True)
    with SyncLimiter(store).hold(ONE):
        tried = own_server.commands().get("subscribe", 0)
        until_now(lambda: own_server.commands().get("subscribe", 0) > tried + 3, "it tries again")
    face.on_notice(None)
    store.close()
    warnings = [each for each in caplog.messages if "cannot receive messages" in each]
    assert len(warnings) == 1
