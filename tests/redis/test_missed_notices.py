"""Notices of granted jobs that were sent while no worker of their gate was subscribed (S17)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConflictResolution,
    Superseded,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.jobs import Job, JobGate, SyncJobGate, Waiting
from limiter_core.requests import Demand, Granted, Notice, Presence, Queued, Replaced, Request
from limiter_redis import RedisStore

from ._clusters import Cluster, flush
from ._servers import Process, Server
from ._tools import until, until_now

GATE = "queue:shop"
LIMIT = ConcurrencyLimit(LIMIT_BY.constant("shared"), max_concurrent=1, scope="jobs")
CLAIM = 600.0
"""Seconds: no test waits for its end, after which a job is offered its slot again."""
MANY = 300
"""Keys: more than one step looks at."""


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    flush(cluster)
    yield cluster
    cluster.close()


def job(ticket: str) -> Job:
    return Job(ticket, LIMIT, ArgumentView({}, "work"), b"job")


def gate_at(store: RedisStore, wake: Callable[[Notice], object], name: str = GATE) -> SyncJobGate:
    return SyncJobGate(store, name, wake, claim=CLAIM)


def subscribers(server: Server) -> int:
    ((_, count),) = server.admin.pubsub_numsub("limiter:notices:0")
    return int(count)


def test_a_worker_that_starts_finds_what_was_granted_before_it_subscribed(
    server: Server, closing: ExitStack
) -> None:
    """The worker before it was killed a moment ago: its jobs are served for some seconds more."""
    killed, new, web = (RedisStore(server.url) for _ in range(3))
    limiter = closing.enter_context(SyncLimiter(web))
    lease = limiter.acquire(LIMIT)
    assert isinstance(gate_at(killed, lambda _: None).admit(job("parked")), Waiting)
    killed.close()  # without leaving
    until_now(lambda: not subscribers(server), "no worker is subscribed")
    lease.release()
    until_now(lambda: not web.session.tracker.notices.undelivered, "the notice was sent")
    woken: list[Notice] = []
    gate = gate_at(new, woken.append)

    def swept() -> bool:
        gate.sweep()
        return bool(woken)

    until_now(swept, "the job is woken")
    until_now(lambda: subscribers(server) == 1, "the worker is subscribed")
    for _ in range(3):
        gate.sweep()
    notices = len(woken)
    gate.sweep()
    assert len(woken) == notices, "each sweep repeats the notices"
    assert {(notice.id, notice.payload) for notice in woken} == {("parked", b"job")}
    gate.drop("parked")
    gate.close()


async def test_a_worker_that_subscribes_again_finds_what_it_missed(own_server: Process) -> None:
    """A lost connection: the worker is there all the time, but receives no messages for a while."""
    user = ("limited", "reset", "on", ">s3cret", "~*", "+@all")
    own_server.admin.execute_command("ACL", "SETUSER", *user, "allchannels")
    url = own_server.url.replace("redis://", "redis://limited:s3cret@")
    store, web = RedisStore(url), RedisStore(own_server.url)
    woken: list[Notice] = []
    gate = JobGate(store, GATE, woken.append, claim=CLAIM)
    with SyncLimiter(web) as limiter:
        async with gate:
            await until(lambda: subscribers(own_server) == 1, "the worker is subscribed")
            lease = await asyncio.to_thread(limiter.acquire, LIMIT)
            assert isinstance(await gate.admit(job("parked")), Waiting)
            # The server ends connections that receive what their user may not.
            own_server.admin.execute_command("ACL", "SETUSER", "limited", "resetchannels")
            await until(lambda: subscribers(own_server) == 0, "the connection has ended")
            await asyncio.to_thread(lease.release)
            await until(lambda: not web.session.tracker.notices.undelivered, "the notice was sent")
            assert not woken
            own_server.admin.execute_command("ACL", "SETUSER", "limited", "allchannels")
            await until(lambda: woken, "the job is woken")
            await gate.drop("parked")
    await store.async_face().aclose()


@pytest.mark.every_server
def test_all_keys_are_looked_at(server: Server, closing: ExitStack) -> None:
    """S16: in steps of bounded work. Jobs of other gates, and claimed ones, are left alone."""
    store, other = RedisStore(server.url), RedisStore(server.url)
    closing.callback(store.close)
    closing.callback(other.close)
    face, ours = other.sync_face(), Presence(GATE, "killed")
    keys = [f"jobs/{number}" for number in range(MANY)]
    names = ("ours", "claimed", "theirs")
    for key in keys:
        face.acquire(Request(f"holder-{key}", (Demand(key, 3, 3),), lease=600.0))
        for name in names:
            presence = ours if name != "theirs" else Presence("queue:theirs", "killed")
            request = Request(
                f"{name}-{key}", (Demand(key, 3),), claim=CLAIM, payload=b"job", presence=presence
            )
            assert isinstance(face.acquire(request), Queued)
        face.release(f"holder-{key}", (key,))
        claimed = Request(
            f"claimed-{key}", (Demand(key, 3),), lease=600.0, payload=b"job", presence=ours
        )
        assert isinstance(face.acquire(claimed), Granted)
    other.close()  # it may yet receive notices, which it would send to the one that sweeps
    face, notices = store.sync_face(), list[Notice]()
    face.on_notice(notices.append)
    until_now(lambda: store.session.tracker.notices.gaps, "it is subscribed")
    face.sweep(Presence(GATE, "new"))
    assert sorted(notice.id for notice in notices) == sorted(f"ours-{key}" for key in keys)
    for key in keys:
        for name in names:
            face.release(f"{name}-{key}", (key,))


@pytest.mark.cluster
def test_in_a_cluster(cluster: Cluster, closing: ExitStack) -> None:
    """Each scope is looked at where it is."""
    store, other = (RedisStore(cluster.url) for _ in range(2))
    closing.callback(store.close)
    closing.callback(other.close)
    face, presence = other.sync_face(), Presence(GATE, "killed")
    keys = [f"scope-{number}/key" for number in range(9)]
    for key in keys:
        face.acquire(Request(f"holder-{key}", (Demand(key, 1),), lease=600.0))
        request = Request(
            f"job-{key}", (Demand(key, 1),), claim=CLAIM, payload=b"job", presence=presence
        )
        assert isinstance(face.acquire(request), Queued)
        face.release(f"holder-{key}", (key,))
    until_now(lambda: not other.session.tracker.notices.undelivered, "the notices were sent")
    notices: list[Notice] = []
    store.sync_face().on_notice(notices.append)
    until_now(lambda: store.session.tracker.notices.gaps, "it is subscribed")
    store.sync_face().sweep(Presence(GATE, "new"))
    assert sorted(notice.id for notice in notices) == sorted(f"job-{key}" for key in keys)
    for key in keys:
        face.release(f"job-{key}", (key,))


LATEST = ConcurrencyLimit(
    LIMIT_BY.constant("latest"), 1, scope="jobs", on_conflict=ConflictResolution.KEEP_LATEST
)


def test_a_job_that_was_refused_while_no_worker_was_subscribed_is_reported(
    server: Server, closing: ExitStack
) -> None:
    """Its ticket is gone: nothing else would say what became of the job."""
    killed, new, web = (RedisStore(server.url) for _ in range(3))
    closing.callback(new.close)
    limiter = closing.enter_context(SyncLimiter(web))
    lease = limiter.acquire(LATEST)
    parked = Job("parked", LATEST, ArgumentView({}, "work"), b"job")
    assert isinstance(gate_at(killed, lambda _: None).admit(parked), Waiting)
    killed.close()  # without leaving
    until_now(lambda: not subscribers(server), "no worker is subscribed")
    with pytest.raises(WaitTimeout):
        limiter.acquire(LATEST, timeout=1.0)  # it is the latest, and takes its place
    until_now(lambda: not web.session.tracker.notices.undelivered, "the notice was sent")
    woken: list[Notice] = []
    gate = gate_at(new, woken.append)

    def swept() -> bool:
        gate.sweep()
        return bool(woken)

    until_now(swept, "the job is woken")
    assert [(notice.id, notice.payload) for notice in woken] == [("parked", b"job")]
    assert isinstance(woken[0].answer, Replaced)
    with pytest.raises(Superseded):  # it is told so as it asks, and not again
        gate.admit(parked)
    assert not server.admin.exists("{limiter:jobs}:refusals")
    lease.release()
    gate.close()


def test_how_a_job_ended_is_remembered_until_it_asks(server: Server, closing: ExitStack) -> None:
    """It was woken, and asks when a worker is free; else it would run, though it was superseded."""
    store = RedisStore(server.url)
    closing.callback(store.close)
    face, ended = store.sync_face(), "{limiter:latest}:ended:job"
    demand = Demand("latest", 1, on_conflict=ConflictResolution.KEEP_LATEST)
    job = Request("job", (demand,), payload=b"job")
    face.acquire(Request("holder", (demand,)))
    assert isinstance(face.acquire(job), Queued)
    assert isinstance(face.acquire(Request("newer", (demand,))), Queued)
    assert server.admin.ttl(ended) > 3600
    assert isinstance(face.acquire(job._replace(claimant="delivery")), Replaced)
    assert 0 < server.admin.ttl(ended) <= 60
    for name in ("holder", "newer"):
        face.release(name, ("latest",))


@pytest.mark.cluster
def test_refused_jobs_in_a_cluster(cluster: Cluster, closing: ExitStack) -> None:
    """Each scope is looked at where it is; what the job knows is not repeated."""
    store, other = (RedisStore(cluster.url) for _ in range(2))
    closing.callback(store.close)
    closing.callback(other.close)
    face, presence = other.sync_face(), Presence(GATE, "killed")
    jobs: dict[str, Request] = {}
    for key in (f"scope-{number}/key" for number in range(6)):
        demand = Demand(key, 1, on_conflict=ConflictResolution.KEEP_LATEST)
        face.acquire(Request(f"holder-{key}", (demand,), lease=600.0))
        jobs[key] = Request(f"job-{key}", (demand,), payload=b"job", presence=presence)
        assert isinstance(face.acquire(jobs[key]), Queued)
        assert isinstance(face.acquire(Request(f"latest-{key}", (demand,), lease=600.0)), Queued)
    known, *unknown = jobs
    assert isinstance(face.acquire(jobs[known]), Replaced)
    until_now(lambda: not other.session.tracker.notices.undelivered, "the notices were sent")
    notices: list[Notice] = []
    store.sync_face().on_notice(notices.append)

    def found() -> bool:
        store.sync_face().sweep(Presence(GATE, "new"))
        return len(notices) >= len(unknown)

    until_now(found, "the refusals are repeated")
    assert sorted(notice.id for notice in notices) == sorted(f"job-{key}" for key in unknown)
    for key in jobs:
        for name in ("job", "latest", "holder"):
            face.release(f"{name}-{key}", (key,))
