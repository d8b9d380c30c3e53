"""Jobs of queues whose workers are killed and whose server restarts: none lost, none too many."""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis

from limiter_core import SyncLimiter
from limiter_redis import RedisStore
from tests.redis._servers import Process, server_program
from tests.redis._tools import until_now

from ._deployments import KEEPING
from ._jobs import ARQ, CELERY, DOCKET, SAQ, Framework, Workers
from ._overlap import History, check
from ._trial import SECONDS, Figures, in_the_long_run
from .workers.job_notes import LEASE, LIMITS

JOBS = 60
PATIENCE = 120.0
"""Seconds until all are done. SAQ's need the most: after a sweep that was killed there is none for
a minute, and the next one looks twice, 23 seconds apart, at a job that may be at a live gate."""
AWAY = 0.4

needs_redis_5 = pytest.mark.skipif(
    importlib.util.find_spec("arq") is None or int(redis.__version__.split(".")[0]) > 5,
    reason="arq and SAQ need redis-py 5: run them in an environment of its own",
)
pytestmark = [
    in_the_long_run,
    pytest.mark.timeout(SECONDS + PATIENCE + 60),
]


def test_jobs_of_docket(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """Kill -9 of workers and of the server: all jobs are done, within the limits."""
    pytest.importorskip("docket")
    jobs_are_done(DOCKET, tmp_path, figures())


def test_jobs_of_celery(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """The same; a worker is killed with its children."""
    pytest.importorskip("celery")
    jobs_are_done(CELERY, tmp_path, figures())


@needs_redis_5
def test_jobs_of_arq(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """The same; arq's workers end with their server, and are started again."""
    jobs_are_done(ARQ, tmp_path, figures())


@needs_redis_5
def test_jobs_of_saq(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """The same."""
    pytest.importorskip("saq")
    jobs_are_done(SAQ, tmp_path, figures())


def jobs_are_done(framework: Framework, folder: Path, figures: Figures) -> None:
    """Two workers do sixty jobs, while in turns a worker and the server are killed."""
    with (
        closing(Process(server_program(), *KEEPING)) as server,
        closing(Workers(framework, server.url, folder)) as workers,
    ):
        workers.enqueue(JOBS)
        began = time.monotonic()
        workers.see_to(2)
        until(workers.done, "a job is done", workers)
        while figures.faults < 2 or (
            time.monotonic() < began + SECONDS and len(workers.done()) < JOBS - 5
        ):
            enough = len(workers.done()) + random.randint(1, 6)
            until(lambda: len(workers.done()) >= min(enough, JOBS - 5), "more are done", workers)  # noqa: B023
            figures.faults += 1
            if figures.faults % 3 == 2:
                server.kill()
                time.sleep(AWAY)
                server.start()
            else:
                workers.see_to(2)[0].kill()
        lost = LostByTheQueue(framework, server)
        until(lambda: len(workers.done() | lost()) == JOBS, f"all {JOBS} jobs are done", workers)
        figures.seconds = time.monotonic() - began
        figures.full_again = until_nothing_is_held(framework, server, workers)
        workers.stop()
        disagreements = workers.disagreements()
        assert disagreements == [], "\n".join(disagreements)
        workers.close()
        history = History()
        bodies = workers.bodies(history)
        lost_jobs = lost() - workers.done()

    assert workers.done() | lost_jobs == set(range(JOBS))
    if lost_jobs:
        figures.errors["lost by the queue's own driver"] = len(lost_jobs)
    # No job is run beside itself, either.
    limits = LIMITS | {f"job {number}": 1 for number in range(JOBS)}
    figures.lease, figures.bodies = LEASE, len(bodies)
    figures.after = len(bodies) / figures.seconds
    figures.lost = sum(body.lost for body in bodies)
    figures.overlap = check(bodies, limits, history, LEASE)
    assert figures.overlap.violations == [], "\n".join(figures.overlap.violations)


class LostByTheQueue:
    """The jobs whose messages were taken from the broker by a worker that is gone.

    A worker that lives notes at once what it takes. So a message that is not noted for long was
    taken by one that was killed in that moment.
    """

    LONG = 3.0
    """Seconds."""

    def __init__(self, framework: Framework, server: Process) -> None:
        self._framework = framework
        self._folder = server.folder
        self._since: dict[str, float] = {}

    def __call__(self) -> set[int]:
        now = time.monotonic()
        found = self._framework.lost_messages(self._folder)
        self._since = {each: self._since.get(each, now) for each in found}
        old = [each for each, since in self._since.items() if now > since + self.LONG]
        return {int(arguments.strip("(,)")) for arguments in old}


def until(condition: Callable[[], object], name: str, workers: Workers) -> None:
    """Wait for a condition, with two workers; raises with their output if it never holds."""

    def holds() -> object:
        workers.see_to(2)
        return condition()

    try:
        until_now(holds, name, patience=PATIENCE)
    except AssertionError as error:
        missing = sorted(set(range(JOBS)) - workers.done())
        raise AssertionError(f"{error}\nnot done: {missing}\n{workers.said()}") from None


def until_nothing_is_held(framework: Framework, server: Process, workers: Workers) -> float:
    """Wait until no slot is taken, no job waits, and no key is left; returns for how long."""
    began = time.monotonic()
    url = f"{server.url.removesuffix('/0')}/{framework.database}"
    with closing(RedisStore(url, namespace=framework.namespace)) as store:
        limiter = SyncLimiter(store)
        states = lambda: [limiter.inspect(key) for key in LIMITS]  # noqa: E731
        until(lambda: not any(s.in_use or s.waiting for s in states()), "nothing is held", workers)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        names = list(client.scan_iter(f"*{framework.namespace}*"))
        assert [name for name in names if client.ttl(name) == -1] == [], "S14"
    return time.monotonic() - began
