"""Worker processes of arq for the tests, and what their jobs noted."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from limiter_arq._job_queue import is_parked
from tests._fork_server import ForkedProcess
from tests.redis._processes import written
from tests.redis._servers import PATIENCE, Server
from tests.redis._tools import until_now

WORKERS = Path(__file__).parent / "workers"


class Note(NamedTuple):
    """What a job's body noted."""

    event: str
    name: Any
    at: float
    pid: int
    job_try: int


class Process:
    """One worker process."""

    def __init__(self, command: list[str], given: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self.process = ForkedProcess(
            command,
            imports=("limiter_arq", "limiter_redis"),
            cwd=WORKERS,
            stderr=self._errors,
            env={**os.environ, "ARQ_TEST": json.dumps(given)},
        )
        self.died_at: float | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def errors(self) -> str:
        """Return what it wrote to stderr so far: arq's log among it."""
        return written(self._errors)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the system does when memory runs out."""
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Wait until it has ended; returns its exit status."""
        status = self.process.wait(PATIENCE)
        self.died_at = self.died_at or time.time()
        return status

    def stop(self) -> None:
        """Have it shut down."""
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.errors()

    def close(self) -> None:
        """Remove it, whatever it does."""
        if self.process.poll() is None:
            self.kill()
        self._errors.close()


class WorkerProcesses:
    """The workers of one test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.workers: list[Process] = []

    def start(self, **given: Any) -> Process:
        """Start a worker: `python -m limiter_arq`; see workers/jobs.py."""
        given = {"url": self.server.url, **given}
        given["worker"] = {"poll_delay": 0.1, **given.get("worker", {})}
        worker = Process(["-m", "limiter_arq", "jobs.WorkerSettings"], given)
        self.workers.append(worker)
        return worker

    def notes(self, *events: str) -> list[Note]:
        """Return what bodies noted so far, in the order in which Redis got it."""
        entries = self.server.admin.lrange("log", 0, -1)
        notes = [Note(*json.loads(entry)) for entry in entries]
        return [note for note in notes if not events or note.event in events]

    def names(self, event: str) -> list[Any]:
        """Return the names of the jobs that noted something, in order."""
        return [note.name for note in self.notes(event)]

    def wait_for(self, event: str, name: Any, *, patience: float = PATIENCE) -> Note:
        """Wait until a job noted it."""

        def found() -> Note | None:
            return next((each for each in self.notes(event) if each.name == name), None)

        until_now(
            lambda: found() or self.troubles(), f"{name!r} notes {event!r}", patience=patience
        )
        note = found()
        assert note is not None, self.troubles()
        return note

    def wait_for_ends(self, count: int, *, patience: float = PATIENCE) -> None:
        """Wait until so many different jobs have ended."""
        until_now(
            lambda: len(set(map(str, self.names("end")))) >= count,
            f"{count} jobs end",
            patience=patience,
        )

    def parked(self, queue: str = "arq:queue") -> int:
        """Return how many jobs of a queue are parked."""
        scores = self.server.admin.zrange(queue, 0, -1, withscores=True)
        return sum(is_parked(score) for _, score in scores)

    def troubles(self) -> str:
        """Return the output of workers that ended in an unexpected way."""
        failed = [
            worker for worker in self.workers if worker.process.poll() not in (None, 0, -9, -15)
        ]
        return "\n".join(worker.errors() for worker in failed)

    def most_at_once(self) -> int:
        """Return how many bodies ran at the worst moment; a killed one ran until its death."""
        deaths = {worker.pid: worker.died_at for worker in self.workers}
        changes: list[tuple[float, int]] = []
        running: dict[tuple[Any, int], float] = {}
        for note in self.notes("begin", "end"):
            if note.event == "begin":
                running[note.name, note.pid] = note.at
            else:
                changes += [(running.pop((note.name, note.pid)), 1), (note.at, -1)]
        for (_, pid), begun in running.items():
            changes += [(begun, 1), (deaths.get(pid) or time.time(), -1)]
        start_worker = most = 0
        for _, change in sorted(changes):  # ends come first at one moment
            start_worker += change
            most = max(most, start_worker)
        return most

    def close(self) -> None:
        """Remove all workers."""
        for worker in self.workers:
            worker.close()
