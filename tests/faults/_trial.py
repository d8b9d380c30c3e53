"""A trial: processes under load on a deployment, a fault, and what has to hold afterwards."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_core.registry import open_store
from limiter_core.requests import CLAIM
from limiter_core.store import Store
from limiter_redis import RedisStore
from limiter_redis.protocol.script import Script
from tests.redis._servers import PATIENCE
from tests.redis._tools import until_now

from ._deployments import Deployment, each_but_layout, keys_for_ever
from ._events import disagreements
from ._holder_processes import WORLDS, HolderProcess, HolderProcesses
from ._overlap import Body, Overlap, check, read

SECONDS = float(os.environ.get("LIMITER_FAULT_SECONDS", "0"))

in_the_long_run = pytest.mark.skipif(
    SECONDS == 0, reason="takes long: run it with LIMITER_FAULT_SECONDS=30"
)
"""How long the load and the faults of each scenario last, at the least."""

PROCESSES = WORLDS * 2 if SECONDS else (*WORLDS, "asyncio")
"""The processes of a trial; for a short one fewer, since to start them takes most of its time."""

BODIES = 8
"""How many bodies prove that work continues: more than may be in the middle of one on a key."""

LIMITS = {"one": 1, "two": 2, "three": 3}
GRACE = 121.0
"""Seconds that a Redis key outlives its last member at most; see docs/reference/redis-layout.md."""


@dataclass(slots=True)
class Figures:
    """What one trial measured."""

    name: str
    overlap: Overlap = field(default_factory=Overlap)
    lease: float = 0.0
    seconds: float = 0.0
    bodies: int = 0
    lost: int = 0
    faults: int = 0
    before: float = 0.0
    after: float = 0.0
    longest_wait: float = 0.0
    full_again: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


class Trial:
    """Processes under load on a deployment. Leaving the block ends them, and checks the result.

    Args:
        deployment: what it works on.
        folder: for its notes.
        figures: what it measures is written there.
        lease: the lease of every call, in seconds.
        script: the store's script, for those that have a clock of their own.
        url: where the processes find the server; None for the deployment's.
        worlds: the processes to begin with.
        leaves: Redis keys that may stay for ever, since the test made them.
    """

    def __init__(
        self,
        deployment: Deployment,
        folder: Path,
        figures: Figures,
        *,
        lease: float,
        script: Script | None = None,
        url: str | None = None,
        worlds: tuple[str, ...] = PROCESSES,
        leaves: tuple[str, ...] = (),
    ) -> None:
        self.deployment = deployment
        self.lease = lease
        self.figures = figures
        figures.lease = lease
        self._script = script
        self._worlds = worlds
        self._leaves = leaves
        given: dict[str, Any] = {"url": url or deployment.url, "limits": LIMITS, "lease": lease}
        if script is not None:
            path = folder / "script.lua"
            path.write_bytes(script.text)
            given["lua"] = str(path)
        self.processes = HolderProcesses(folder, **given)
        self._faults: list[float] = []
        self._began = 0.0

    def __enter__(self) -> Self:
        try:
            self.processes.start(*self._worlds)
            self._began = time.monotonic()
            self.until_bodies_end()
        except BaseException:
            self.processes.close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self.processes.close()

    def rounds(self, least: int = 1) -> Iterator[int]:
        """Yield until the time is up; each round makes a fault, and checks that work continues."""
        end = time.monotonic() + SECONDS
        number = 0
        while number < least or time.monotonic() < end:
            self._faults.append(time.monotonic())
            yield number
            number += 1
            self._faults.append(time.monotonic())

    def until_bodies_end(self, holders: Iterable[HolderProcess] | None = None) -> None:
        """Wait until every process (or each of those given), and every key, sees more bodies."""
        # A slot that was handed to one that died lies there for the claim time.
        self.processes.until_bodies_end(LIMITS, BODIES, PATIENCE + self.lease + CLAIM, holders)

    def end_bodies(self) -> None:
        """End the bodies that are kept, after a while, and wait until work continues."""
        # Beside them first, as far as there is room: that is when something would overlap.
        time.sleep(self.lease / 2)
        self.processes.end_bodies()
        self.until_bodies_end()

    def until_ended(self, bodies: Iterable[str]) -> None:
        """Wait until these bodies have ended (by lease id)."""
        bodies = set(bodies)
        until_now(lambda: not bodies & self.processes.holding(), "these bodies have ended")
        self.processes.end_bodies()

    def forgot(self, why: str, moments: tuple[float, float]) -> None:
        """Note that the store forgot all leases between these moments."""
        self.processes.history.forgot(why, *moments)

    def store(self) -> Store:
        """Return a store of this process on the deployment."""
        if self._script is None:
            return open_store(self.deployment.url)
        return RedisStore(self.deployment.url, script=self._script)

    # -- the end ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        self.until_bodies_end()  # throughput has resumed
        stopped = time.monotonic()
        said = self.processes.finish(PATIENCE + self.lease + CLAIM)  # every waiter ends
        bodies = read(self.processes.folder.glob("*.notes"))
        self.figures.overlap = check(bodies, LIMITS, self.processes.history, self.lease)
        self._measure(bodies, said, stopped)
        assert self.figures.overlap.violations == [], "\n".join(self.figures.overlap.violations)
        self._events_agree(bodies)
        self._capacity_is_full()
        self._nothing_is_left()

    def _events_agree(self, bodies: list[Body]) -> None:
        """Hold the events of the processes against their bodies."""
        began: dict[int, list[str]] = {}
        for body in bodies:
            began.setdefault(body.process, []).append(body.id)
        files = list(self.processes.folder.glob("*.events"))
        assert len(files) >= len(began)
        found = disagreements(files, began, self.processes.history.killed)
        assert found == [], "\n".join(found)

    def _measure(self, bodies: list[Body], said: list[dict[str, Any]], stopped: float) -> None:
        figures = self.figures
        figures.seconds = stopped - self._began
        figures.bodies = len(bodies)
        figures.lost = sum(body.lost for body in bodies)
        figures.faults = len(self._faults) // 2
        first, last = (self._faults or [stopped])[0], (self._faults or [self._began])[-1]
        figures.before = _rate(bodies, self._began, first)
        figures.after = _rate(bodies, last, stopped)
        for each in said:
            figures.errors.update(each["errors"])
            figures.longest_wait = max(figures.longest_wait, each["longest_wait"])

    def _capacity_is_full(self) -> None:
        """Take every slot of every key, all at once."""
        store = self.store()
        limiter = SyncLimiter(store)
        began = time.monotonic()
        # A process that was killed while it waited may have been granted a slot, kept for the
        # claim time, from the end of a lease at the latest.
        patience = self.lease + CLAIM + 2.0
        leases = [
            limiter.acquire(limit_of(key, self.lease), timeout=patience)
            for key, count in LIMITS.items()
            for _ in range(count)
        ]
        self.figures.full_again = time.monotonic() - began
        for lease in leases:
            assert not lease.lost
            lease.release()
        # The holders were all there were: nothing is kept for those that are gone.
        assert list(limiter.keys()) == []
        store.sync_face().close()

    def _nothing_is_left(self) -> None:
        servers = self.deployment.primaries()
        left = [name for name in keys_for_ever(servers) if name not in self._leaves]
        assert left == [], "S14: these would stay for ever"
        for server in servers:
            for name in each_but_layout(server):
                assert server.admin.ttl(name) <= self.lease + GRACE, f"S14: {name} stays too long"


Deploy = Callable[..., Deployment]
Begin = Callable[..., Trial]
"""What the fixtures `deploy` and `trial` give."""


def limit_of(key: str, lease: float) -> ConcurrencyLimit:
    """Return the limit of a key, as workers/holder.py makes it."""
    scope = None if key == "one" else "faults"
    return ConcurrencyLimit(LIMIT_BY.constant(key), LIMITS[key], scope=scope, lease=lease)


def _rate(bodies: list[Body], since: float, until: float) -> float:
    ended = sum(since <= body.end < until for body in bodies)
    return ended / (until - since) if until > since else 0.0
