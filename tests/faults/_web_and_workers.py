"""A web process and the workers of a job queue that share a limit, on one server."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLease, SyncLimiter
from limiter_redis import RedisStore
from tests.redis._proxy import Proxy
from tests.redis._servers import Process
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

needs_redis_5 = int(redis.__version__.split(".")[0]) > 5


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
        self.enqueue()
        self.workers.see_to(1)  # of two, each would bring in some, in any order
        self.until(lambda: self.waiting() == JOBS, "all jobs wait")
        self.line = [waiter.id for waiter in self.web.inspect("one").waiters]
        return lease

    def enqueue(self) -> None:
        """Enqueue the jobs."""
        self._enqueuer.enqueue(JOBS, "one")

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
