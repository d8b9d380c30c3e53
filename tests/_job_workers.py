"""The workers of a burst of jobs (tests/_job_events.py), of any queue."""

from __future__ import annotations

from pathlib import Path

from limiter_core import SyncLimiter
from limiter_redis import RedisStore
from tests.faults._jobs import Framework, Worker


class JobWorkers:
    """Two workers of a queue, and what looks at their store.

    Args:
        framework: how to run one.
        url: of the server.
        folder: for their notes.
    """

    grants_first = True

    def __init__(self, framework: Framework, url: str, folder: Path) -> None:
        environment = {"JOBS_EVENTS": str(folder)}
        self._folder = folder
        self._workers = [
            Worker(framework, url, folder / name, environment) for name in ("one", "other")
        ]
        address = f"{url.removesuffix('/0')}/{framework.database}"
        self._store = RedisStore(address, namespace=framework.namespace)
        self.limiter = SyncLimiter(self._store)

    def output(self) -> str:
        """Return what they logged."""
        return "\n".join(worker.said(None) for worker in self._workers)

    def stop(self) -> None:
        """Have them end in good order."""
        for worker in self._workers:
            worker.stop()

    def close(self) -> None:
        """Remove them, whatever they do."""
        (self._folder / "may end").touch()
        for worker in self._workers:
            worker.close()
        self._store.close()
