"""Jobs without a worker: what the Redis store does beyond the contract (S17)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit, SyncLimiter
from limiter_core.jobs import Job, JobGate, SyncJobGate, Waiting
from limiter_core.requests import PRESENCE, Demand, Granted, Notice, Presence, Queued, Request
from limiter_redis import RedisStore

from ._clusters import Cluster, flush
from ._fake_time import FAKED, TIME_KEY, ServerClock
from ._servers import Server
from ._tools import until_now

GATE = "queue:shop"
MANY = 300
"""Keys: more than one step looks at."""


@pytest.fixture
def store(server: Server, clock: ServerClock) -> Iterator[RedisStore]:
    store = RedisStore(server.url, script=FAKED)
    yield store
    store.close()


@pytest.fixture
def notices(store: RedisStore) -> list[Notice]:
    notices: list[Notice] = []
    store.sync_face().on_notice(notices.append)
    return notices


def worker(name: str = "one", *, leaving: bool = False) -> Presence:
    return Presence(GATE, name, leaving)


def job(name: str, key: str, **facts: object) -> Request:
    demand = Demand(key, 2, **facts)  # type: ignore[arg-type]
    return Request(name, (demand,), lease=10_000.0, payload=b"job", presence=worker())


def call(name: str, key: str) -> Request:
    return Request(name, (Demand(key, 2),), lease=10_000.0)


@pytest.mark.every_server
def test_all_keys_are_looked_at_when_the_last_worker_leaves(
    store: RedisStore, notices: list[Notice]
) -> None:
    """S16: in steps of bounded work; the sweep that says so goes on until it is done."""
    face = store.sync_face()
    keys = [f"jobs/{number}" for number in range(MANY)]
    for key in keys:
        face.acquire(call(f"holder-{key}", key))
        assert isinstance(face.acquire(job(f"wide-{key}", key, cost=2)), Queued)
        assert isinstance(face.acquire(call(f"call-{key}", key)), Queued)
    face.sweep(worker("one"))
    face.sweep(worker("two"))
    face.sweep(worker("one", leaving=True))
    assert not any(len(face.inspect(key).holders) > 1 for key in keys[:3]), "one is left"
    face.sweep(worker("two", leaving=True))
    for key in keys:
        assert [holder.id for holder in face.inspect(key).holders] == [
            f"holder-{key}",
            f"call-{key}",
        ]
        for name in ("holder", "call"):
            face.release(f"{name}-{key}", (key,))
    assert not notices
    face.sweep(worker("one"))
    assert sorted(notice.id for notice in notices) == sorted(f"wide-{key}" for key in keys)
    for key in keys:
        face.release(f"wide-{key}", (key,))
    assert list(face.keys()) == []


@pytest.mark.every_server
def test_a_killed_worker_is_missed_by_its_waiters_alone(server: Server) -> None:
    """Nobody sweeps: the process of the call looks when the last worker may be gone."""
    wide = ConcurrencyLimit(LIMIT_BY.constant("shared"), 2, cost=2)
    narrow = ConcurrencyLimit(LIMIT_BY.constant("shared"), 2)
    gate = SyncJobGate(server.url, GATE, lambda _: None)
    other = RedisStore(server.url)
    other.sync_face().acquire(Request("holder", (Demand("shared", 2),), lease=60.0))
    with SyncLimiter(server.url) as web:
        parked = gate.admit(Job("wide", wide, ArgumentView({}, "work"), b"job"))
        assert isinstance(parked, Waiting)
        # The gate is not swept, and does not leave: as after kill -9.
        with web.hold(narrow, timeout=PRESENCE + 10):
            assert [each.name for each in web.inspect("shared").dormant] == [GATE]
    gate.drop("wide")
    gate.close()
    other.sync_face().release("holder", ["shared"])
    other.close()


def test_a_store_that_lost_its_data_learns_the_scopes_again(
    server: Server, store: RedisStore, notices: list[Notice], clock: ServerClock
) -> None:
    """Else the sweeps would not come to their jobs."""
    face = store.sync_face()
    face.acquire(call("holder", "jobs/key"))
    face.acquire(job("before", "jobs/key", cost=2))
    server.admin.delete(*(name for name in server.admin.keys() if name != TIME_KEY))
    clock.advance(1)
    face.sweep(worker())
    face.acquire(call("holder", "jobs/key"))
    face.acquire(job("after", "jobs/key", cost=2))
    clock.advance(PRESENCE + 1)
    face.release("holder")
    assert not notices
    face.sweep(worker())
    assert [notice.id for notice in notices] == ["after"]
    face.release("after")


def test_the_parts_of_a_queue_are_made_anew_if_the_server_threw_them_away(
    server: Server, store: RedisStore, notices: list[Notice]
) -> None:
    """Row 22: the state is there, and says who waits."""
    face = store.sync_face()
    face.acquire(call("holder", "jobs/key"))
    for number in range(3):
        face.acquire(job(f"job-{number}", "jobs/key", cost=2)._replace(order=number + 1))
    for name in server.admin.scan_iter("*:jobs:*"):
        server.admin.delete(name)
    face.release("holder")
    assert [notice.id for notice in notices] == ["job-0"]
    for number in range(3):
        assert isinstance(face.acquire(job(f"job-{number}", "jobs/key", cost=2)), Granted)
        face.release(f"job-{number}")
    assert [notice.id for notice in notices] == ["job-0", "job-1", "job-2"]
    assert list(face.keys()) == []


@pytest.mark.every_server
def test_workers_of_the_past_are_forgotten(
    server: Server, store: RedisStore, clock: ServerClock
) -> None:
    """A deploy each hour leaves no names behind."""
    face = store.sync_face()
    for number in range(100):
        face.sweep(worker(f"worker-{number}"))
        clock.advance(30)
    [name] = server.admin.scan_iter("*:present:*")
    assert server.admin.zcard(name) <= 4


async def test_a_gate_that_closes_leaves(server: Server) -> None:
    """Also with jobs that run: the others of its name go on."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("shared"), 1)
    seen = RedisStore(server.url)
    face = seen.async_face()
    async with JobGate(server.url, GATE, lambda _: None) as other:
        async with JobGate(server.url, GATE, lambda _: None) as gate:
            lease = await gate.admit(Job("runs", limit, ArgumentView({}, "work"), b""))
            assert not isinstance(lease, Waiting)
            await other.admit(Job("waits", limit, ArgumentView({}, "work"), b""))
            await gate.leave()
            assert (await face.inspect("shared")).waiting == 1
            await other.leave()
            assert (await face.inspect("shared")).waiting == 0
            await lease.release()  # type: ignore[union-attr]
            assert (await face.inspect("shared")).in_use == 0
            other.arrive()
            await other.sweep()
            assert (await face.inspect("shared")).in_use == 1
        assert await other.drop("waits")
    await seen.aclose()


@pytest.mark.cluster
def test_in_a_cluster(cluster: Cluster) -> None:
    """Presence lies where the step that hands over can read it: in the slot of its scope."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("shared"), 1, scope="jobs")
    notices: list[Notice] = []
    gate = SyncJobGate(cluster.url, GATE, notices.append)
    with SyncLimiter(cluster.url) as web:
        with web.hold(limit):
            gate.admit(Job("waits", limit, ArgumentView({}, "work"), b""))
            gate.sweep()
            gate.leave()
            assert [each.waiting for each in web.inspect("jobs/shared").dormant] == [1]
        with web.hold(limit, timeout=5):
            assert not notices
        gate.arrive()
        gate.sweep()
        until_now(lambda: notices, "the job is offered its slot")
    assert gate.drop("waits")
    gate.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    flush(cluster)
    yield cluster
    cluster.close()
