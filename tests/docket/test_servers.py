"""Dockets on Sentinel and on a Cluster: the limits live where the docket does, in its own slot."""

# ruff: noqa: B008

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
import redis
from docket import Docket

from limiter_docket import LIMIT_BY, ConcurrencyLimit
from tests.docket._tools import (
    TaskRecord,
    finish,
    limiter_of,
    most_at_once,
    parked,
    until,
    until_true,
    working,
)
from tests.docket._worker_processes import WorkerProcesses
from tests.docket.workers import shop
from tests.faults._replicated import Cluster
from tests.faults._sentinel import Sentinel

_numbers = itertools.count()


class RedisDeployment:
    """The servers of a docket: the URL as the docket reads it, and a client of the test."""

    def __init__(self, deployment: Sentinel | Cluster) -> None:
        self.deployment = deployment
        self.url = deployment.url
        self.tagged = isinstance(deployment, Cluster)
        if self.tagged:  # Docket gives redis-py one node, which reports the others
            self.url = self.url.partition(",")[0]

    @property
    def admin(self) -> Any:
        """A client of the server that takes writes now."""
        primary = self.deployment.primaries()[0]
        kind: Any = redis.RedisCluster if self.tagged else redis.Redis
        return kind(host="127.0.0.1", port=primary.port, decode_responses=True)

    def prefix_of(self, name: str) -> str:
        return f"{{{name}}}" if self.tagged else name

    def names(self) -> set[str]:
        """Return the names of all keys."""
        return {name for server in self.deployment.primaries() for name in server.admin.keys()}

    def crossed(self) -> bool:
        """Whether a command asked for keys of several slots."""
        return any(
            "errorstat_CROSSSLOT" in server.admin.info("errorstats")
            for server in self.deployment.primaries()
        )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Sentinel, id="sentinel"),
        pytest.param(Cluster, id="cluster", marks=pytest.mark.cluster),
    ],
)
def running_place(request: pytest.FixtureRequest) -> Iterator[RedisDeployment]:
    deployment = request.param()
    yield RedisDeployment(deployment)
    deployment.close()


@pytest.fixture
def place(running_place: RedisDeployment) -> Iterator[RedisDeployment]:
    """A place, empty; afterwards no slot is left."""
    for server in running_place.deployment.primaries():
        server.admin.flushall()
        server.admin.config_resetstat()
    yield running_place
    assert not [name for name in running_place.names() if "limits:" in name and ":state" in name]
    assert not running_place.crossed()


@pytest.fixture
async def docket(place: RedisDeployment) -> AsyncIterator[Docket]:
    async with Docket(name=f"shop{next(_numbers)}", url=place.url) as docket:
        yield docket


async def test_tasks_wait_in_line_below_the_dockets_prefix(
    docket: Docket, place: RedisDeployment
) -> None:
    record = TaskRecord()

    async def bill(
        n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("bills"), max_concurrent=1)
    ) -> None:
        await record.hold(n)

    async with working(docket):
        for each in range(12):
            await docket.add(bill)(each)
        await until_true(parked(docket, 11), "eleven wait")
        assert place.names() >= {f"{docket.prefix}:limits:{{bills}}:state"}
        assert {name for name in place.names() if not name.startswith(f"{docket.prefix}:")} == set()
        assert (await (await limiter_of(docket)).inspect("bills")).waiting == 11
        record.go_on.set()
        await until(lambda: len(record.began) == 12, "all run")
    assert sorted(record.began) == list(range(12))
    assert most_at_once(record.bodies) == 1


async def test_limits_of_any_scopes_are_taken_together(docket: Docket) -> None:
    record = TaskRecord()

    async def sync(
        customer_id: Annotated[int, ConcurrencyLimit(1)],
        region: Annotated[str, ConcurrencyLimit(2, scope="regions")],
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("all"), 3, scope="everything"),
    ) -> None:
        await record.body(c.keys)

    for each in range(12):
        await docket.add(sync)(each % 6, "eu")
    await finish(docket)
    assert len(record.began) == 12
    assert set(record.began[0]) > {"regions/region=eu", "everything/all"}
    assert most_at_once(record.bodies) == 2


async def test_a_cancelled_task_and_an_operator_reach_those_who_wait(docket: Docket) -> None:
    record = TaskRecord()

    async def task(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"))) -> None:
        await record.hold(n)

    async with working(docket):
        await docket.add(task)(0)
        await until(lambda: record.began, "the first runs")
        cancelled = await docket.add(task)(1)
        await docket.add(task)(2)
        await until_true(parked(docket, 2), "two wait")
        await docket.cancel(cancelled.key)
        limiter = await limiter_of(docket)

        async def one_waits() -> bool:
            return (await limiter.inspect("k")).waiting == 1

        await until_true(one_waits, "one ticket is left")
        await limiter.set_limit("k", 2)
        await until(lambda: record.began == [0, 2], "the other runs beside the first")
        await limiter.reset_limit("k")
        record.go_on.set()


@pytest.fixture
def start_processes(place: RedisDeployment) -> Iterator[Callable[[], WorkerProcesses]]:
    fleets: list[WorkerProcesses] = []

    def start() -> WorkerProcesses:
        fleets.append(WorkerProcesses(place, f"fleet{next(_numbers)}"))
        return fleets[-1]

    yield start
    for each in fleets:
        each.close()


@pytest.mark.parametrize(
    "point",
    [
        "running",
        *(
            pytest.param(each, marks=pytest.mark.exhaustive)
            for each in ("before parking", "after release")
        ),
    ],
)
async def test_a_killed_worker_loses_no_task(
    start_processes: Callable[[], WorkerProcesses], place: RedisDeployment, point: str
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=place.url) as docket:
        for each in range(5):
            await docket.add(shop.bill)(each, 1, 0.1)
    victim = processes.start(kill_at=point)
    processes.wait(lambda: victim.dead, f"it dies at {point!r}")
    processes.start()
    processes.start()
    processes.wait_until_idle()
    assert sorted({what for what, _ in processes.events("end")}) == list("01234")
    assert processes.most_at_once() == 1


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_failover_loses_no_task(
    start_processes: Callable[[], WorkerProcesses], place: RedisDeployment
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=place.url) as docket:
        for each in range(60):
            await docket.add(shop.bill)(each, each % 3, 0.1)
    processes.start()
    processes.start()
    processes.wait_for("end", 10)
    place.deployment.failover()
    processes.wait_for("end", 60, patience=120)
    processes.wait_until_idle()
    assert {what for what, _ in processes.events("end")} == set(map(str, range(60)))
