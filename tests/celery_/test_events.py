"""Events, log and results of real `celery worker` processes."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

from tests._job_events import Burst
from tests._job_workers import JobWorkers
from tests.faults._jobs import Framework

from ._worker_processes import IMPORTS, Sent, app_for_sending

_MODULE = "tests.celery_.workers.event_jobs"
CELERY = Framework(
    _MODULE,
    (
        *("celery", "-A", _MODULE, "worker", "-c", "8", "-n", "{name}@burst"),
        *("--without-mingle", "--without-gossip", "-l", "INFO"),
    ),
    IMPORTS,
    database=2,
    namespace="limiter",
)


class CeleryWorkers(JobWorkers):
    """Two workers of an app."""

    grants_first = False

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(CELERY, f"{url}/0", folder)
        self._app: Any = app_for_sending(url)

    async def add(self, function: str, name: str) -> None:
        self._app.send_task(function, (name,), task_id=name)

    async def cancel(self, name: str) -> None:
        self._app.control.revoke(name)

    async def error(self, name: str) -> str | None:
        sent = Sent(self._app, name)
        if not sent.ready():
            return None
        return str(self._app.backend.get_task_meta(name, cache=False)["result"])


def test_a_burst_of_tasks(url: str, tmp_path: Path) -> None:
    with closing(CeleryWorkers(url, tmp_path)) as workers:
        asyncio.run(Burst(workers, tmp_path).run())
