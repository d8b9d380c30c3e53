"""Real `docket worker` processes: started, watched, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tests import _fork_server
from tests._fork_server import ForkedProcess
from tests.redis._processes import most_at_once, written
from tests.redis._servers import PATIENCE, Server
from tests.redis._tools import until_now

ROOT = Path(__file__).parents[2]
IMPORTS = ("docket.cli", "limiter_docket", "limiter_redis")
_fork_server.expect(IMPORTS)


class Process:
    """One `docket worker`."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = ForkedProcess(
            command,
            imports=IMPORTS,
            cwd=ROOT,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """What it wrote."""
        return written(self._log)

    def kill(self) -> None:
        """Kill it as the system does when memory runs out."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def terminate(self) -> int:
        """Have it end in good order, and return its exit code."""
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Remove it, whatever it does."""
        if not self.dead:
            self.kill()
        self._log.close()


class RedisDeployment(Protocol):
    """Where a docket is."""

    url: str

    @property
    def admin(self) -> Any:
        """A client that looks at it from behind."""
        ...

    def prefix_of(self, name: str) -> str:
        """Return what the keys of a docket begin with."""
        ...


class SingleServer:
    """A docket's place on one server."""

    def __init__(self, server: Server) -> None:
        self.url, self.admin = server.url, server.admin

    def prefix_of(self, name: str) -> str:
        return name


class WorkerProcesses:
    """Workers of one docket, which do the tasks of workers/shop.py."""

    def __init__(self, server: RedisDeployment, name: str) -> None:
        self.server = server
        self.name = name
        self._workers: list[Process] = []

    def start(
        self, *, kill_at: str = "", backstop: float = 300.0, apart: bool = False, **options: Any
    ) -> Process:
        """Start a worker.

        Args:
            kill_at: a point that workers/shop.py knows, at which it kills itself.
            backstop: of `set_store`.
            apart: give the limits a store that is not the docket's own, though in the same place.
            options: of `docket worker`.
        """
        given = {"redelivery-timeout": "2s", "logging-level": "WARNING"}
        given |= {name.replace("_", "-"): str(value) for name, value in options.items()}
        command = ["-m", "docket", "worker", "--docket", self.name]
        command += ["--url", self.server.url, "--tasks", "tests.docket.workers.shop:tasks"]
        for name, value in given.items():
            command += [f"--{name}", value]
        environment = {**os.environ, "SHOP_DOCKET": self.name}
        environment |= {"SHOP_KILL_AT": kill_at, "SHOP_BACKSTOP": str(backstop)}
        if apart:
            namespace = quote(f"{self.server.prefix_of(self.name)}:limits")
            environment["SHOP_STORE"] = f"{self.server.url}?namespace={namespace}"
        worker = Process(command, environment)
        self._workers.append(worker)
        return worker

    def events(self, kind: str) -> list[tuple[str, float]]:
        """Return whose bodies began ("begin") or ended ("end"), and when."""
        lines = self.server.admin.lrange(f"log:{self.name}:{kind}", 0, -1)
        return [(what, float(at)) for what, at in (line.rsplit(" ", 1) for line in lines)]

    def wait_for(self, kind: str, number: int, *, patience: float = 40.0) -> None:
        """Wait until so many bodies began or ended."""

        def reached() -> bool:
            return len(self.events(kind)) >= number

        self.wait(reached, f"{number} bodies {kind}", patience)

    def wait_until_idle(self) -> None:
        """Wait until the docket has nothing to do any more, and no slot is taken."""
        admin, prefix = self.server.admin, self.server.prefix_of(self.name)

        def idle() -> bool:
            states = [name for name in admin.scan_iter() if name.startswith(f"{prefix}:limits:")]
            stream, queue = admin.xlen(f"{prefix}:stream"), admin.zcard(f"{prefix}:queue")
            return not any(":state" in name for name in states) and stream == 0 and queue == 0

        self.wait(idle, "all is done")

    def wait(self, condition: Callable[[], object], name: str, patience: float = 40.0) -> None:
        """Wait for a condition; if it never comes true, raise with the output of the workers."""
        try:
            until_now(condition, name, patience=patience)
        except AssertionError as error:
            output = "\n".join(worker.output[-3000:] for worker in self._workers)
            raise AssertionError(f"{error}\n{output}") from None

    def most_at_once(self) -> int:
        """Return how many bodies ran at the worst moment, of those that ended."""
        return self.most_at_once_of(lambda _: True)

    def most_at_once_of(self, chosen: Callable[[str], bool]) -> int:
        """Return how many of the chosen bodies ran at the worst moment, of those that ended."""
        begins: dict[str, list[float]] = {}
        for what, at in self.events("begin"):
            begins.setdefault(what, []).append(at)
        return most_at_once(
            [(begins[what].pop(), at) for what, at in self.events("end") if chosen(what)]
        )

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
