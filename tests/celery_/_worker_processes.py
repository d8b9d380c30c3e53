"""Celery workers of the tests, as processes, and what their tasks noted."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import redis
from celery import group, states

from limiter_core import SyncLimiter
from tests import _fork_server
from tests._fork_server import ForkedProcess
from tests.redis._processes import most_at_once, written
from tests.redis._tools import until_now

WORKERS = Path(__file__).parent / "workers"
PATIENCE = 30.0
IMPORTS = (
    *("celery.bin.celery", "celery.apps.worker", "celery.backends.redis", "kombu.transport.redis"),
    *("celery.concurrency.prefork", "celery.concurrency.thread", "celery.concurrency.solo"),
    *("limiter_celery", "limiter_redis"),
)
_fork_server.expect(IMPORTS)
PATCHING = ("gevent", "eventlet")
"""Pools that patch what is imported after them: nothing must be imported before."""
LONG = 45.0
"""Seconds of a body that a test lets end by `let_end`."""


def load_app_module() -> Any:
    """Return the module that makes the app."""
    spec = importlib.util.spec_from_file_location("_celery_shop", WORKERS / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_apps: dict[str, Any] = {}


def _app_of(given: dict[str, Any]) -> Any:
    """Return an app to send with: one for each address, as its connections are kept for good."""
    options = {name: given[name] for name in ("url", "broker", "queues", "conf") if name in given}
    address = json.dumps(options)
    if address not in _apps:
        _apps[address] = load_app_module().make_app(
            {**options, "install": False, "preempting": True}
        )
        # `Sent` polls; nothing subscribes for results.
        _apps[address].backend.on_task_call = lambda *_: None
        _apps[address].backend.remove_pending_result = lambda *_: None
    return _apps[address]


def app_for_sending(url: str) -> Any:
    """Return an app that sends tasks to any worker on a server."""
    return _app_of({"url": url})


def close_apps() -> None:
    """Close the connections of all apps."""
    for app in _apps.values():
        app.backend.client.close()
        app.pool.force_close_all()
        app.close()
        app.log_client.close()
    _apps.clear()


class Sent:
    """A task that was sent: its state and result, without a subscription for them."""

    def __init__(self, app: Any, task_id: str) -> None:
        self.id = task_id
        self._app = app

    @property
    def state(self) -> str:
        """Return its state."""
        return str(self._app.backend.get_task_meta(self.id, cache=False)["status"])

    def ready(self) -> bool:
        """Whether it has a result."""
        return self.state in states.READY_STATES

    def get(self) -> Any:
        """Return its result, or raise it."""
        until_now(self.ready, f"{self.id} has a result", patience=PATIENCE)
        result = self._app.backend.get_task_meta(self.id, cache=False)["result"]
        if isinstance(result, BaseException):
            raise result
        return result

    def revoke(self, **options: Any) -> None:
        """Revoke it."""
        self._app.control.revoke(self.id, **options)


class CeleryWorker:
    """One worker: its main process, and the children of that."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `close`
        self.process = ForkedProcess(
            [str(WORKERS / "worker.py"), json.dumps(given)],
            imports=() if given["pool"] in PATCHING else IMPORTS,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def output(self) -> str:
        """Return all that it logged."""
        return written(self._output)

    def signal(self, number: int) -> None:
        """Send its main process a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """Kill it, and forget its output."""
        self.kill()
        self._output.close()

    def wait(self) -> int:
        """Wait until it ended by itself."""
        return self.process.wait(PATIENCE)


class WorkerProcesses:
    """Workers of one app, and the app itself, which sends the tasks.

    Args:
        url: of a server, without a database.
        given: to all workers; see workers/app.py.
    """

    def __init__(self, url: str, **given: Any) -> None:
        self.given = {"url": url, "pool": "prefork", "concurrency": 2, **given}
        self.app = _app_of(self.given)
        self._log = redis.Redis.from_url(url + "/3", decode_responses=True)
        self.broker = redis.Redis.from_url(url + "/0", decode_responses=True)
        self.limiter = SyncLimiter(self.given.get("store", url + "/2"))
        self.workers: list[CeleryWorker] = []

    def start(self, *, ready: bool = True, **given: Any) -> CeleryWorker:
        """Start a worker, and wait until it takes tasks and remote control commands."""
        name = f"w{len(self.workers)}"
        worker = CeleryWorker({**self.given, "name": name, **given})
        self.workers.append(worker)
        if ready:
            self.until(lambda: f"{name}@test ready" in worker.output(), f"{name} is ready")
            # It logs this before it subscribes to Redis: a command that is sent earlier is lost.
            self.until(lambda: self.ask(name, "ping", timeout=1.0), f"{name} takes commands")
        return worker

    def ask(self, name: str, command: str, *, timeout: float = PATIENCE, **arguments: Any) -> Any:
        """Return what a worker replies to a remote control command; None if it does not."""
        worker = f"{name}@test"
        options = {"reply": True, "timeout": timeout, "limit": 1}
        with self.app.connection_for_write() as own:  # those of the app a test may have broken
            replies = self.app.control.broadcast(
                command, arguments, [worker], connection=own, **options
            )
        return replies[0][worker] if replies else None

    def send(self, task: str, *args: Any, **options: Any) -> Sent:
        """Send a task by its name."""
        return Sent(self.app, self.app.send_task(task, args, **options).id)

    def task(self, name: str) -> Any:
        """Return a task, to build chains and groups of."""
        return self.app.tasks[name]

    def log(self, event: str = "", task_id: str = "") -> list[dict[str, Any]]:
        """Return what the bodies noted."""
        notes = [json.loads(line) for line in self._log.lrange("test:log", 0, -1)]
        return [
            each for each in notes if event in ("", each["event"]) and task_id in ("", each["id"])
        ]

    def revoked(self) -> list[tuple[str, bool]]:
        """Return which tasks were reported as REVOKED, and whether as expired."""
        return [tuple(json.loads(each)) for each in self._log.lrange("test:revoked", 0, -1)]

    def refusals(self) -> int:
        """Return of how many tasks the store keeps that they are not to run, until reported."""
        with closing(
            redis.Redis.from_url(self.given.get("store", self.given["url"] + "/2"))
        ) as store:
            return int(store.hlen("{limiter}:refusals"))

    def began(self, result: Any) -> bool:
        """Whether the body of a task began."""
        return bool(self.log("begin", result.id))

    def until(self, condition: Callable[[], object], name: str, patience: float = PATIENCE) -> None:
        """Wait until a condition holds; if it does not, the error has the output of the workers."""
        try:
            until_now(condition, name, patience=patience)
        except AssertionError as error:
            output = "\n".join(worker.output() for worker in self.workers)
            raise AssertionError(f"{error}\n{output}\n{self.log()[-20:]}") from None

    def until_began(self, result: Any) -> None:
        """Wait until the body of a task began."""
        self.until(lambda: self.began(result), f"{result.id} began")

    def until_some_begins_at_once(self) -> None:
        """Wait until a task without a limit began; the fastest of several did within a second.

        One may find the machine busy. What delays them in the worker delays all of them.
        """
        pauses: list[float] = []
        for _ in range(5):
            sent_at = time.time()
            free = self.send("free")
            self.until_began(free)
            pauses.append(self.log("begin", free.id)[0]["at"] - sent_at)
        assert min(pauses) < 1.0, pauses

    def let_end(self, *results: Any) -> None:
        """Have the bodies of tasks end now, whatever time they were given."""
        for each in results:
            self._log.set(f"test:log:may_end:{each.id}", "now")

    def until_ended(self, *results: Any) -> None:
        """Wait until the bodies of tasks ended."""
        ids = {result.id for result in results}
        self.until(
            lambda: ids <= {each["id"] for each in self.log("end")}, f"{len(ids)} tasks ended"
        )

    def until_ready(self, *results: Any) -> None:
        """Wait until tasks have a result, whichever."""
        self.until(lambda: all(result.ready() for result in results), "tasks have a result")

    def follow(self, task: str, user: str, *args: Any) -> tuple[Sent, Sent]:
        """Send a task, and another that waits for its slot; wait until that ended."""
        first = self.send(task, user, *args)
        self.until_began(first)
        second = self.send("by_user", user)
        self.until_ended(second)
        self.until(lambda: self.limiter.inspect(f"user={user}").in_use == 0, "the slot is free")
        assert self.limiter.inspect(f"user={user}").waiting == 0
        return first, second

    def group(self, members: list[Any]) -> Any:
        """Return a group of tasks."""
        return group(members, app=self.app)

    def spans_by_id(self) -> list[tuple[float, float, str]]:
        """Return begin and end of each body that ended, and its task's id."""
        begun: dict[tuple[str, int, int], float] = {}
        spans: list[tuple[float, float, str]] = []
        for note in self.log():
            body = note["id"], note["try"], note["pid"]
            if note["event"] == "begin":
                begun[body] = note["at"]
            elif body in begun:
                spans.append((begun.pop(body), note["at"], note["id"]))
        return spans

    def spans(self) -> list[tuple[float, float]]:
        """Return begin and end of each body that ended."""
        return [(begin, end) for begin, end, _ in self.spans_by_id()]

    def most(self, spans: list[tuple[float, float]]) -> int:
        """Return how many of these overlapped at most."""
        return most_at_once(spans)

    def most_at_once(self) -> int:
        """Return how many bodies ran at the same time, at most."""
        return most_at_once(self.spans())

    def close(self) -> None:
        """End all."""
        for worker in self.workers:
            worker.close()
        self.limiter.close()
        self._log.close()
        self.broker.close()


MakeWorkers = Callable[..., WorkerProcesses]
"""What the fixture `make_workers` is."""
