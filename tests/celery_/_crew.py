"""Celery workers of the tests, as processes, and what their tasks noted."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.redis._processes import most_at_once
from tests.redis._tools import until_now

WORKERS = Path(__file__).parent / "workers"
PATIENCE = 30.0


def load_shop() -> Any:
    """Return the module that makes the app."""
    spec = importlib.util.spec_from_file_location("_celery_shop", WORKERS / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_apps: dict[str, Any] = {}


def _app_of(given: dict[str, Any]) -> Any:
    """Return an app to send with: one for each address, as its connections are kept for good."""
    where = f"{given['url']} {given.get('broker')}"
    if where not in _apps:
        _apps[where] = load_shop().make_app(
            {"url": given["url"], "install": False, "preempting": True}
            | ({"broker": given["broker"]} if "broker" in given else {})
        )
    return _apps[where]


def close_apps() -> None:
    """Close the connections of all apps."""
    for app in _apps.values():
        app.backend.result_consumer.stop()
        app.backend.client.close()
        app.pool.force_close_all()
        app.close()
        app.log_client.close()
    _apps.clear()


class CeleryWorker:
    """One worker: its main process, and the children of that."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, str(WORKERS / "worker.py"), json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )

    def said(self) -> str:
        """Return all that it logged."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send its main process a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it and its children."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """Kill it, and forget what it said."""
        self.kill()
        self._output.close()

    def wait(self) -> int:
        """Wait until it ended by itself."""
        return self.process.wait(PATIENCE)


class Crew:
    """Workers of one app, and the app itself, which sends the tasks.

    Args:
        url: of a server, without a database.
        given: to all workers; see workers/shop.py.
    """

    def __init__(self, url: str, **given: Any) -> None:
        self.given = {"url": url, "pool": "prefork", "concurrency": 2, **given}
        self.app = _app_of(self.given)
        self._log = redis.Redis.from_url(url + "/3", decode_responses=True)
        self.broker = redis.Redis.from_url(url + "/0", decode_responses=True)
        self.workers: list[CeleryWorker] = []

    def start(self, *, ready: bool = True, **given: Any) -> CeleryWorker:
        """Start a worker, and wait until it takes tasks."""
        name = f"w{len(self.workers)}"
        worker = CeleryWorker({**self.given, "name": name, **given})
        self.workers.append(worker)
        if ready:
            self.until(lambda: f"{name}@test ready" in worker.said(), f"{name} is ready")
        return worker

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task, by its name: a producer need not know more."""
        return self.app.send_task(task, args, **options)

    def task(self, name: str) -> Any:
        """Return a task, to build chains and groups of."""
        return self.app.tasks[name]

    def log(self, event: str = "", task_id: str = "") -> list[dict[str, Any]]:
        """Return what the bodies noted."""
        said = [json.loads(line) for line in self._log.lrange("test:log", 0, -1)]
        return [
            each for each in said if event in ("", each["event"]) and task_id in ("", each["id"])
        ]

    def began(self, result: Any) -> bool:
        """Whether the body of a task began."""
        return bool(self.log("begin", result.id))

    def until(self, condition: Callable[[], object], name: str) -> None:
        """Wait until a condition holds; tells what the workers said if it never does."""
        try:
            until_now(condition, name, patience=PATIENCE)
        except AssertionError as error:
            said = "\n".join(worker.said() for worker in self.workers)
            raise AssertionError(f"{error}\n{said}\n{self.log()}") from None

    def until_began(self, result: Any) -> None:
        """Wait until the body of a task began."""
        self.until(lambda: self.began(result), f"{result.id} began")

    def until_ended(self, *results: Any) -> None:
        """Wait until the bodies of tasks ended."""
        ids = {result.id for result in results}
        self.until(
            lambda: ids <= {each["id"] for each in self.log("end")}, f"{len(ids)} tasks ended"
        )

    def until_ready(self, *results: Any) -> None:
        """Wait until tasks have a result, whichever."""
        self.until(lambda: all(result.ready() for result in results), "tasks have a result")

    def spans(self) -> list[tuple[float, float]]:
        """Return begin and end of each body that ended."""
        ends = {(each["id"], each["try"]): each["at"] for each in self.log("end")}
        return [
            (each["at"], ends[each["id"], each["try"]])
            for each in self.log("begin")
            if (each["id"], each["try"]) in ends
        ]

    def most_at_once(self) -> int:
        """Return how many bodies ran at the same time, at most."""
        return most_at_once(self.spans())

    def close(self) -> None:
        """End all."""
        for worker in self.workers:
            worker.close()
        self._log.close()
        self.broker.close()
