"""Two releases on one server: they share the layout of a namespace, or the later one is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
    __version__,
)
from limiter_core.jobs import JobGate
from limiter_core.requests import Demand, Granted, Presence, Queued, Request
from limiter_redis import RedisStore
from limiter_redis.protocol.layout import LAYOUT

from ._clusters import Cluster
from ._servers import Process, Server
from ._tools import until, until_now
from .test_access_rights import allow

NAME = "{limiter}:layout"
KEPT = 8 * 24 * 3600
ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)
OTHER = "9 7.0.0 1795517135413714"

CALLS: dict[str, Callable[[Any], Any]] = {
    "acquire": lambda face: face.acquire(Request("r", (Demand("one", 1),))),
    "inspect": lambda face: face.inspect("one"),
    "set_limit": lambda face: face.set_limit("one", 2),
    "reset_limit": lambda face: face.reset_limit("one"),
    "pause": lambda face: face.pause("one"),
    "resume": lambda face: face.resume("one"),
    "evict": lambda face: face.evict("r"),
    "evict_waiter": lambda face: face.evict_waiter("r"),
    "sweep": lambda face: face.sweep(Presence("gate", "worker")),
    "policies": lambda face: face.policies(),
    "changes": lambda face: face.changes(),
}


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    with closing(RedisStore(server.url)) as store:
        yield store


def refused() -> Any:
    """What a call raises in a namespace with the layout `OTHER`: it names both releases."""
    return pytest.raises(
        StoreError,
        match=rf"'limiter' .* has layout 9, of 7\.0\.0, and this is {__version__} with layout "
        rf"{LAYOUT}: .* delete the Redis key \{{limiter\}}:layout",
    )


@pytest.mark.every_server
def test_the_first_process_notes_the_layout(server: Server) -> None:
    with closing(RedisStore(server.url)) as store, SyncLimiter(store).hold(ONE):
        number, release, noted_at = server.admin.get(NAME).split()
    assert (number, release) == (str(LAYOUT), __version__)
    assert abs(int(noted_at) / 1e6 - server.admin.time()[0]) < 60
    assert KEPT - 60 < server.admin.ttl(NAME) <= KEPT


@pytest.mark.parametrize("name", CALLS)
async def test_no_call_touches_another_layout(server: Server, store: RedisStore, name: str) -> None:
    server.admin.set(NAME, OTHER, ex=100)
    with refused() as caught:
        CALLS[name](store.sync_face())
    assert not isinstance(caught.value, StoreUnavailable)
    with refused():
        await CALLS[name](store.async_face())
    assert server.admin.keys() == [NAME]
    assert server.admin.get(NAME) == OTHER


async def test_keys_are_not_listed_in_another_layout(server: Server, store: RedisStore) -> None:
    server.admin.set(NAME, OTHER, ex=100)
    with refused():
        list(SyncLimiter(store).keys())
    with refused():
        [key async for key in Limiter(store).keys()]


async def test_a_queue_keeps_its_jobs_while_the_layout_is_another(
    server: Server, store: RedisStore
) -> None:
    server.admin.set(NAME, OTHER, ex=100)
    gate = JobGate(store, "queue", lambda _: None)
    with refused():
        await gate.sweep()
    server.admin.delete(NAME)
    await gate.sweep()
    await gate.leave()


def test_another_release_may_share_the_layout(server: Server, store: RedisStore) -> None:
    """And one that notes it anew after an hour lets it stand as it was noted."""
    noted_at = server.admin.time()[0] * 1_000_000
    server.admin.set(NAME, f"{LAYOUT} 1.0.9 {noted_at}", ex=100)
    with SyncLimiter(store).hold(ONE):
        assert server.admin.get(NAME) == f"{LAYOUT} 1.0.9 {noted_at}"
    server.admin.set(NAME, f"{LAYOUT} 1.0.9 {noted_at - 3_601_000_000}", ex=100)
    with closing(RedisStore(server.url)) as other, SyncLimiter(other).hold(ONE):
        number, release, again_at = server.admin.get(NAME).split()
    assert (number, release) == (str(LAYOUT), "1.0.9")
    assert int(again_at) >= noted_at
    assert server.admin.ttl(NAME) > 100


async def test_a_process_that_runs_is_refused_as_well(server: Server, store: RedisStore) -> None:
    """What it holds it can release; after a FLUSHALL the layout of the next process counts."""
    limiter = SyncLimiter(store)
    lease = limiter.acquire(ONE)
    server.admin.set(NAME, OTHER, ex=100)
    other = ConcurrencyLimit(LIMIT_BY.constant("another"), timeout=0)

    def is_refused() -> bool:
        try:
            limiter.acquire(other).release()
        except StoreError as error:
            return "layout 9" in str(error)
        return False

    await until(is_refused, "the process has seen the other layout")
    lease.release()
    server.admin.flushall()
    limiter.acquire(other).release()
    assert server.admin.get(NAME).startswith(f"{LAYOUT} ")


def test_a_user_without_the_right_to_write_reads_it(own_server: Process) -> None:
    rights = "~{limiter* -@all +evalsha +eval +time +type +get +hget +hmget +zrange +ping +select"
    with closing(RedisStore(allow(own_server, rights))) as store:
        assert store.sync_face().inspect("one").in_use == 0
        assert not own_server.admin.exists(NAME)
    own_server.admin.set(NAME, OTHER)
    with closing(RedisStore(allow(own_server, rights))) as store, refused():
        store.sync_face().inspect("one")


async def test_a_user_who_may_not_read_it_goes_on(own_server: Process) -> None:
    """A user with rights for the keys of limits, and for no others, may do what these need."""
    own_server.admin.set(NAME, OTHER)
    with closing(RedisStore(allow(own_server, "~{limiter:*}:* &limiter:* +@all"))) as store:
        SyncLimiter(store).acquire(ONE).release()
        await (await Limiter(store).acquire(ONE)).release()
    with closing(RedisStore(allow(own_server, "~{limiter:*}:* &limiter:* +@all"))) as store:
        assert store.sync_face().inspect("one").in_use == 0
        assert (await store.async_face().inspect("one")).in_use == 0


def test_the_name_of_a_limit_need_not_be_readable_to_be_refused(own_server: Process) -> None:
    """Without the right to read limits by name the layout is asked for alone."""
    own_server.admin.set(NAME, OTHER)
    with closing(RedisStore(allow(own_server, "~{limiter* &* +@all -hkeys"))) as store:
        with refused():
            SyncLimiter(store).acquire(ONE)
        own_server.admin.delete(NAME)
        SyncLimiter(store).acquire(ONE).release()


def test_each_namespace_has_its_own(server: Server) -> None:
    server.admin.set("shop:limits:layout", OTHER, ex=100)
    with closing(RedisStore(server.url)) as store:
        SyncLimiter(store).acquire(ONE).release()
    with (
        closing(RedisStore(server.url, namespace="shop:limits")) as store,
        pytest.raises(StoreError, match=r"delete the Redis key shop:limits:layout"),
    ):
        SyncLimiter(store).acquire(ONE)


@pytest.mark.cluster
async def test_in_a_cluster_one_node_has_it_for_all() -> None:
    with closing(Cluster()) as cluster:
        limits = [ConcurrencyLimit(LIMIT_BY.constant(f"key-{n}")) for n in range(20)]
        with closing(RedisStore(cluster.url)) as store:
            async with Limiter(store) as limiter:
                for limit in limits:
                    await (await limiter.acquire(limit)).release()
        (node,) = (each for each in cluster.primaries() if {*each.admin.scan_iter()} == {NAME})
        node.admin.set(NAME, OTHER, ex=100)
        with closing(RedisStore(cluster.url)) as store:
            for limit in limits:
                with refused():
                    SyncLimiter(store).acquire(limit)
                with refused():
                    await Limiter(store).acquire(limit)


def test_what_is_no_layout_is_an_error(server: Server, store: RedisStore) -> None:
    server.admin.set(NAME, "what is\nthis?", ex=100)
    with pytest.raises(StoreError, match=r"\{limiter\}:layout cannot be read: 'what is\?this\?'"):
        SyncLimiter(store).acquire(ONE)


# -- a release before 1.0.0rc1, which notes nothing ------------------------------------------------


@pytest.mark.every_server
@pytest.mark.parametrize("namespace", ["limiter", "a b*[c]?^\\-é"])
def test_processes_of_before_are_seen_by_their_channels(server: Server, namespace: str) -> None:
    client = redis.Redis.from_url(server.url)
    subscriber = client.pubsub()
    subscriber.subscribe(f"{namespace}:process:0e9633cb541d628f")
    until_now(lambda: server.admin.pubsub_channels("*:0e9633cb541d628f"), "it is subscribed")
    with closing(RedisStore(server.url, namespace=namespace)) as store:
        with pytest.raises(
            StoreError, match=r"has layout 1, of a release before 1\.0\.0rc1, .*, this one goes on"
        ):
            SyncLimiter(store).acquire(ONE)
        assert server.admin.keys() == []
        subscriber.close()
        client.close()
        until_now(lambda: not server.admin.pubsub_channels("*:0e9633cb541d628f"), "it has ended")
        SyncLimiter(store).acquire(ONE).release()


def test_what_a_release_before_left_is_read(server: Server, store: RedisStore) -> None:
    """Sole holders, and waiters without a process, as it wrote them; each in its place."""
    now = server.admin.time()[0] * 1_000_000
    due = now + 30_000_000
    server.admin.set(
        "{limiter:sole}:state",
        f"70d4-1 {due} 1 1 {now} {now} 0 30000000 3b99dfc6fcbe5b1e - web-1:204",
        ex=100,
    )
    fields = {"used": 1, "waiting": 1, "queued": 1, "token": now, "order": now + 1, "fair": 0}
    fields |= {"expires": due + 60_000_000, "jobs": 0, "offered": 0}
    fields["h:70d4-2"] = f"{now} 1 1 - 0 30000000 1 0 3b99dfc6fcbe5b1e - web-1:204 -"
    fields["t:83ab-3"] = (
        f"{now + 1} - 30000000 0 5000000 83abd058a05cf75b - web-2:318 - 1 1 - 1 1 queue 0 - -1"
    )
    server.admin.hset("{limiter:two}:state", mapping=fields)
    server.admin.zadd("{limiter:two}:ends", {"h70d4-2": due, "t83ab-3": due})
    server.admin.zadd("{limiter:two}:queue", {f"00000001{now + 1:014x}{now + 1:014x}83ab-3": 0})
    for part in ("state", "ends", "queue"):
        server.admin.expire(f"{{limiter:two}}:{part}", 100)
    face = store.sync_face()
    for key in ("sole", "two"):
        snapshot = face.inspect(key)
        assert [each.label for each in snapshot.holders] == ["web-1:204"]
        queued = face.acquire(Request(f"late-{key}", (Demand(key, 1),)))
        assert isinstance(queued, Queued)
    assert [each.label for each in face.inspect("two").waiters] == ["web-2:318", ""]
    assert face.evict("70d4-1")
    assert isinstance(face.acquire(Request("late-sole", (Demand("sole", 1),))), Granted)
    assert face.evict("70d4-2")
    assert [each.id for each in face.inspect("two").holders] == ["83ab-3"]
    assert face.evict("83ab-3")
    assert isinstance(face.acquire(Request("late-two", (Demand("two", 1),))), Granted)
    for key in ("sole", "two"):
        face.release(f"late-{key}", (key,))
