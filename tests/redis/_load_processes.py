"""Processes that load many keys, and the check of what they noted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ._processes import Worker, most_at_once
from ._servers import PATIENCE
from ._tools import until_now

KEYS = [f"k{number}" for number in range(12)]
"""Keys on all nodes of a cluster of three."""


class LoadProcesses:
    """Three processes: two with an event loop, one with threads."""

    def __init__(
        self, start: Callable[..., Worker], url: str, *, lease: float = 2.0, **given: Any
    ) -> None:
        given |= {"url": url, "keys": KEYS, "lease": lease}
        self._lease = lease
        self._workers = [
            start("load_on_many_keys.py", **{"async": True, "at_once": 8, "body": 0.002}, **given),
            start("load_on_many_keys.py", **{"async": True, "at_once": 8, "body": 0.002}, **given),
            start("load_on_many_keys.py", at_once=4, body=0.002, **given),
        ]
        for worker in self._workers:
            worker.wait_for("begins")
        self.bodies: defaultdict[str, list[tuple[float, float, int]]] = defaultdict(list)
        self.failures: list[str] = []

    def until_progress(self, seconds: float = 0.0) -> None:
        """Wait until each process has served each key from now on; for so many seconds at least."""
        until = time.monotonic() + seconds
        # Of the first round, some of the bodies began before.
        rounds = {worker: worker.count("round") + 2 for worker in self._workers}
        until_now(
            lambda: (
                time.monotonic() >= until
                and all(worker.count("round") >= number for worker, number in rounds.items())
            ),
            "each process serves each key",
            patience=PATIENCE + seconds,
        )

    def finish(self) -> None:
        """Have them end, and collect what they say."""
        for worker in self._workers:
            worker.tell()
        for worker in self._workers:
            said = worker.wait_for("done", patience=40)
            worker.end()
            self.failures += said["failures"]
            for key, bodies in said["bodies"].items():
                self.bodies[key] += [(begin, end, token) for begin, end, token in bodies]

    def check(self, *, lost_between: tuple[float, float] | None = None) -> None:
        """Nobody overlapped, tokens rose; but where writes may have been lost, for one lease."""
        for key in KEYS:
            bodies = sorted(self.bodies[key])
            if lost_between is not None:
                since, until = lost_between[0] - self._lease, lost_between[1] + self._lease
                bodies = [body for body in bodies if not since <= body[0] <= until]
            assert most_at_once((begin, end) for begin, end, _ in bodies) <= 1, key
            tokens = [token for _, _, token in bodies]
            assert tokens == sorted(set(tokens)), key

    def check_progress_since(self, since: float) -> None:
        """All keys were served after a moment."""
        last = {key: max((begin for begin, _, _ in self.bodies[key]), default=0.0) for key in KEYS}
        assert all(at > since for at in last.values()), (since, last, time.monotonic())
