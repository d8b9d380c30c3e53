"""Events, log and results of real `docket worker` processes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from docket import Docket, ExecutionState

from tests._job_events import Burst
from tests._job_workers import JobWorkers
from tests.faults._jobs import Framework
from tests.redis._servers import Server

from .workers import event_jobs

NAME = "burst"
DOCKET = Framework(
    "tests.docket.workers.event_jobs",
    (
        *("docket", "worker", "--docket", NAME, "--url", "{url}"),
        *("--tasks", "tests.docket.workers.event_jobs:tasks", "--logging-format", "plain"),
    ),
    ("docket.cli", "limiter_docket", "limiter_redis"),
    namespace=f"{NAME}:limits",
)


class DocketWorkers(JobWorkers):
    """Two workers of a docket."""

    def __init__(self, docket: Docket, url: str, folder: Path) -> None:
        super().__init__(DOCKET, url, folder)
        self._docket = docket
        for task in event_jobs.tasks:
            docket.register(task)

    async def add(self, function: str, name: str) -> None:
        await self._docket.add(function, key=name)(name)

    async def cancel(self, name: str) -> None:
        await self._docket.cancel(name)

    async def error(self, name: str) -> str | None:
        execution = await self._docket.get_execution(name)
        if execution is None or execution.state is not ExecutionState.CANCELLED:
            return None
        return execution.error


async def test_a_burst_of_tasks(server: Server, tmp_path: Path) -> None:
    async with Docket(name=NAME, url=server.url) as docket:
        with closing(DocketWorkers(docket, server.url, tmp_path)) as workers:
            await Burst(workers, tmp_path).run()
