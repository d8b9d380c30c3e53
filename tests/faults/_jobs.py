"""Workers of job queues: started, killed, and what their jobs have noted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests._fork_server import ForkedProcess
from tests.project._tree import ROOT
from tests.redis._processes import written
from tests.redis._servers import PATIENCE

from ._broker_log import lost_messages
from ._events import disagreements
from ._overlap import Body, History, read


@dataclass(frozen=True, slots=True)
class Framework:
    """How to run one.

    Attributes:
        module: with its jobs, in workers/.
        command: what runs a worker of them, after `python -m`.
        imports: most of what a worker imports.
        database: of the server, where the slots are.
        namespace: of the store's keys.
        children: of a worker, in which its bodies run; 0 if they run in its main process.
        lost_messages: finds, by the server's log, the arguments of jobs that the queue's own
            driver lost.
    """

    module: str
    command: tuple[str, ...]
    imports: tuple[str, ...]
    database: int = 0
    namespace: str = "limiter"
    children: int = 0
    lost_messages: Callable[[Path], set[str]] = lambda _: set()


_MODULES = "tests.faults.workers"

DOCKET = Framework(
    f"{_MODULES}.docket_jobs",
    (
        *("docket", "worker", "--docket", "faults", "--url", "{url}"),
        *("--tasks", f"{_MODULES}.docket_jobs:tasks", "--redelivery-timeout", "2s"),
    ),
    ("docket.cli", "limiter_docket", "limiter_redis"),
    namespace="faults:limits",
)
CELERY = Framework(
    f"{_MODULES}.celery_jobs",
    (
        *("celery", "-A", f"{_MODULES}.celery_jobs", "worker", "-c", "2", "-n", "{name}@faults"),
        *("--without-mingle", "--without-gossip", "-l", "WARNING"),
    ),
    ("celery.bin.celery", "celery.concurrency.prefork", "limiter_celery", "limiter_redis"),
    database=2,
    children=2,
    lost_messages=lost_messages,
)
SAQ = Framework(
    f"{_MODULES}.saq_jobs",
    ("saq", f"{_MODULES}.saq_jobs.settings"),
    ("saq.worker", "limiter_saq", "limiter_redis"),
)
ARQ = Framework(
    f"{_MODULES}.arq_jobs",
    ("limiter_arq", f"{_MODULES}.arq_jobs.WorkerSettings"),
    ("limiter_arq", "limiter_redis"),
)


class Worker:
    """One worker: its main process, the children of that, and a folder for their notes."""

    def __init__(
        self, framework: Framework, url: str, folder: Path, settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.died_at: float | None = None
        self.ended_well = False
        folder.mkdir()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        command = [part.format(url=url, name=folder.name) for part in framework.command]
        self._process = ForkedProcess(
            ["-m", *command],
            imports=framework.imports,
            cwd=ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**_environment(url), **settings, "JOBS_NOTES": str(folder)},
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        """Whether it runs; a worker may end with its broker."""
        if self._process.poll() is not None and self.died_at is None:
            self.kill()  # children that are left
        return self.died_at is None

    def kill(self) -> None:
        """Kill it and its children, as the system does when memory runs out."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        if self.died_at is None:
            self.died_at = time.monotonic()

    def stop(self) -> None:
        """Ask it to shut down, and wait until it has."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Freeze it and its children."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def said(self, most: int | None = 3000) -> str:
        """Return what it logged: the end of it, or (None) all."""
        return written(self._output)[-most if most else 0 :]

    def close(self) -> None:
        """Remove it."""
        self.kill()
        self._output.close()


class Workers:
    """Those of one framework, at one server.

    Args:
        framework: whose.
        url: of the server.
        folder: for their notes.
        claim: seconds that a job has to come for its slot.
    """

    def __init__(
        self, framework: Framework, url: str, folder: Path, claim: float | None = None
    ) -> None:
        self._settings = {} if claim is None else {"JOBS_CLAIM": str(claim)}
        self._framework = framework
        self._url = url
        self._folder = folder
        self._all: list[Worker] = []

    def enqueue(self, count: int, kind: str = "") -> None:
        """Enqueue jobs, all of one kind or of each in turns, from a process that ends then."""
        subprocess.run(
            [sys.executable, "-m", self._framework.module],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=60,
            env={**_environment(self._url), "JOBS_COUNT": str(count), "JOBS_KIND": kind},
        )

    def see_to(self, count: int) -> list[Worker]:
        """Have so many at work, as a supervisor would; returns them, the oldest first."""
        while len(alive := [worker for worker in self._all if worker.alive]) < count:
            folder = self._folder / f"worker-{len(self._all)}"
            self._all.append(Worker(self._framework, self._url, folder, self._settings))
        return alive

    def done(self) -> set[int]:
        """Return the jobs whose bodies have come to their end."""
        done: set[int] = set()
        for line in _whole_lines(self._files()):
            noted = json.loads(line)
            if noted["what"] == "end" and noted["done"]:
                done.add(noted["job"])
        return done

    def bodies(self, history: History) -> list[Body]:
        """Return all bodies, and note in the history when those ended that died with a worker."""
        for worker in self._all:
            if worker.died_at is not None:
                for path in worker.folder.glob("*.notes"):
                    history.killed[int(path.stem)] = worker.died_at
        return read(self._files())

    def stop(self) -> None:
        """Have those that live end in good order."""
        for worker in self._all:
            if worker.alive:
                worker.stop()
                worker.ended_well = True

    def disagreements(self) -> list[str]:
        """Return where the events of a worker and the notes of its bodies disagree, as text."""
        found: list[str] = []
        for worker in self._all:
            files = list(worker.folder.glob("*.events"))
            leases = [
                noted["lease"]
                for line in _whole_lines(worker.folder.glob("*.notes"))
                if (noted := json.loads(line))["what"] == "begin"
            ]
            assert len(files) <= 1, "the events of a worker are those of its main process"
            for path in files:
                process = int(path.stem)
                killed = set[int]() if worker.ended_well else {process}
                found += disagreements(files, {process: leases}, killed, self._framework.children)
        return found

    def said(self) -> str:
        """Return what the last of them logged."""
        return "\n".join(worker.said() for worker in self._all[-3:])

    def close(self) -> None:
        """Remove all."""
        for worker in self._all:
            worker.close()

    def _files(self) -> Iterable[Path]:
        return self._folder.glob("worker-*/*.notes")


def _whole_lines(files: Iterable[Path]) -> list[str]:
    """Return the lines of files, but for what was cut off by a kill."""
    texts = [path.read_text(encoding="utf-8") for path in files]
    return [line for text in texts for line in text[: text.rfind("\n") + 1].splitlines()]


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, "JOBS_URL": url}
