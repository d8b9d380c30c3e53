"""The collector on a server that others use, too: round trips, slices, outages."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from limiter_core import Limiter, StoreError
from limiter_core.monitoring import Collector
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_redis.protocol.commands import SCAN_COUNT

from ._servers import Process, Server
from ._tools import until


async def hold(store: RedisStore, count: int, waiters: int = 0) -> None:
    face = store.async_face()
    for number in range(1 + waiters):
        requests = [Request(f"{key}-{number}", (Demand(f"k{key}", 1),)) for key in range(count)]
        await asyncio.gather(*map(face.acquire, requests))


async def test_a_round_of_1000_keys_takes_few_round_trips(
    server: Server, astore: RedisStore
) -> None:
    await hold(astore, 1000)
    collector = Collector(astore)
    await collector.search()
    await collector.look()
    before = server.calls() + server.commands().get("scan", 0)
    await collector.look()
    after = server.calls() + server.commands().get("scan", 0)
    assert after - before <= 12
    assert len(collector.statuses()) == 1000


async def test_what_it_shows_is_what_inspect_says(server: Server, astore: RedisStore) -> None:
    await hold(astore, 10, waiters=3)
    collector = Collector(astore)
    await collector.search()
    await collector.look()
    for status in collector.statuses():
        truth = await astore.async_face().inspect(status.key)
        assert (status.in_use, status.limit, status.waiting) == (1, 1, 3)
        assert (truth.in_use, truth.limit, truth.waiting) == (1, 1, 3)


async def test_a_search_among_the_keys_of_others_goes_in_slices(
    server: Server, astore: RedisStore
) -> None:
    """Between two slices others have their turn, also where a slice finds nothing."""
    pipeline = server.admin.pipeline(transaction=False)
    for number in range(10 * SCAN_COUNT):
        pipeline.set(f"other:{number}", "", ex=600)
    pipeline.execute()
    await hold(astore, 3)
    slices: list[None] = []

    async def after_slice() -> None:
        slices.append(None)

    face = astore.async_face()
    keys = {key async for key in face.keys(after_slice=after_slice)}
    assert keys == {"k0", "k1", "k2"}
    assert len(slices) >= 10
    in_thread: list[None] = []
    found = astore.sync_face().keys(after_slice=lambda: in_thread.append(None))
    assert set(found) == keys
    assert len(in_thread) >= 10


async def test_a_server_that_is_away_for_a_while(own_server: Process) -> None:
    store = RedisStore(own_server.url)
    await hold(store, 5)
    collector = Collector(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collector.run)
        with collector.watching():
            await until(lambda: len(collector.statuses()) == 5, "the keys are seen")
            own_server.kill()
            await until(lambda: collector.health.unavailable_since is not None, "it is away")
            assert len(collector.statuses()) == 5
            assert "127.0.0.1" in collector.health.error
            own_server.start()
            await until(lambda: collector.health.unavailable_since is None, "it is there again")
        tasks.cancel_scope.cancel()
    await store.aclose()


VIEWER = (
    "resetkeys ~{limiter:*}:* ~{limiter}:* resetchannels -@all +select +ping"
    " +fcall +function|load +evalsha +eval +scan +hkeys +lrange"
    " +time +type +get +hget +hmget +zrange"
)
"""What a page that only reads has to be allowed; see docs/how-to/operating.md."""


async def test_a_user_that_may_only_read_sees_everything_and_changes_nothing(
    own_server: Process,
) -> None:
    own_server.admin.execute_command("ACL", "SETUSER", "viewer", "on", ">s3cret", *VIEWER.split())
    writer = RedisStore(own_server.url)
    await hold(writer, 3, waiters=2)
    face = writer.async_face()
    for number in range(2):
        await face.acquire(Request(f"short-{number}", (Demand("ended", 2),), lease=0.05))
    await face.acquire(Request("long", (Demand("ended", 2),), lease=600))
    await face.acquire(Request("alone", (Demand("alone", 1),), lease=0.05))
    viewer = RedisStore(own_server.url.replace("redis://", "redis://viewer:s3cret@"))
    collector = Collector(viewer)
    async with Limiter(writer) as operator:
        await operator.set_name_limit("billing", 3, by="ann")
    reads = viewer.async_face()
    assert [each.name for each in await reads.policies()] == ["billing"]
    assert [each.by for each in await reads.changes()] == ["ann"]
    dump = {
        name: own_server.admin.dump(name)
        for name in ("{limiter:k0}:state", "{limiter:ended}:state")
    }

    async def seen() -> dict[str, tuple[int, int]]:
        await collector.search()
        await collector.look()
        assert collector.health.error == ""
        assert not any(each.unreadable for each in collector.statuses())
        return {each.key: (each.in_use, each.waiting) for each in collector.statuses()}

    give_up_at = anyio.current_time() + 20
    while (await seen())["ended"][0] or (await seen())["alone"][0]:
        assert anyio.current_time() < give_up_at, "the leases have ended, and that is seen"
        await anyio.sleep(0.01)
    found = await seen()
    assert [found[f"k{number}"] for number in range(3)] == [(1, 2)] * 3
    snapshot = await viewer.async_face().inspect("k0")
    assert [each.id for each in snapshot.waiters] == ["0-1", "0-2"]
    for name, before in dump.items():
        assert own_server.admin.dump(name) == before
    for change in (
        viewer.async_face().pause("k0"),
        viewer.async_face().set_limit("k0", 9),
        viewer.async_face().evict("0-0"),
        viewer.async_face().release("0-0", ("k0",)),
        viewer.async_face().acquire(Request("mine", (Demand("new", 1),))),
    ):
        with pytest.raises(StoreError):
            await change
    assert (await face.inspect("k0")).in_use == 1
    await viewer.aclose()
    await writer.aclose()


async def test_no_secret_of_the_url_is_in_an_error(own_server: Process) -> None:
    url = own_server.url.replace("redis://", "redis://someone:hunter2@")
    store: Any = RedisStore(url)
    collector = Collector(store)
    await collector.search()
    assert collector.health.unavailable_since is not None
    assert "hunter2" not in collector.health.error
    await store.aclose()
