"""Web servers and clients under load: started, killed, and what they have noted."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests._fork_server import ForkedProcess
from tests.project._tree import ROOT
from tests.redis._ports import free_port
from tests.redis._processes import written
from tests.redis._servers import PATIENCE
from tests.redis._tools import until_now

from ._events import disagreements
from ._overlap import Body, History, read
from .workers.body_notes import LEASE

PROCESSES = 4
SERVER = ("asyncio", "fastapi", "uvicorn", "limiter_asgi", "limiter_redis")
CLIENT = ("asyncio", "aiohttp", "httpx", "httpx2", "limiter_redis")
AGENTS = ("asyncio", "pydantic_ai", "limiter_pydantic_ai", "limiter_redis")


class WebProcess:
    """A process of workers/, which is killed or ends by a signal.

    Args:
        module: what it runs.
        imports: most of what that imports.
        given: its settings.
    """

    def __init__(self, module: str, imports: tuple[str, ...], given: dict[str, Any]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._process = ForkedProcess(
            ["-m", f"tests.faults.workers.{module}", json.dumps(given)],
            imports=imports,
            cwd=ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid

    def check(self) -> None:
        """Raise if it has ended."""
        assert self._process.poll() is None, f"a process has ended: {self.said()}"

    def kill(self) -> float:
        """Kill it as the system does when memory runs out; returns when it was gone."""
        self._process.kill()
        self._process.wait(PATIENCE)
        return time.monotonic()

    def ask_to_end(self) -> None:
        """Have it end when its requests have ended."""
        self._process.terminate()

    def finish(self) -> None:
        """Wait until it has ended by itself."""
        code = self._process.wait(PATIENCE + LEASE)
        assert code in (0, -signal.SIGTERM), f"exit code {code}: {self.said()}"

    def said(self) -> str:
        """Return the end of what it logged."""
        return written(self._output)[-3000:]

    def close(self) -> None:
        """Remove it."""
        self._process.close()
        self._output.close()


class Web:
    """Four web servers, and four clients of one kind.

    Args:
        url: of the store.
        folder: for the notes.
        client: `sockets`, `agents` (which need no server), or the HTTP client that is limited.
    """

    def __init__(self, url: str, folder: Path, client: str) -> None:
        self.folder = folder
        self.history = History()
        self._url = url
        self._client = client
        self._ports = [free_port() for _ in range(PROCESSES)]
        self._kills = 0
        self._processes = ExitStack()
        self.servers: list[WebProcess] = []
        self.clients: list[WebProcess] = []

    def __enter__(self) -> Self:
        with ExitStack() as on_error:
            on_error.push(self._processes)
            if self._client != "agents":
                self.servers += [self._start_server(port) for port in self._ports]
            self.clients += [self._start_client() for _ in range(PROCESSES)]
            on_error.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def kill_one(self) -> None:
        """Kill a process in whatever it does, and start another in its place.

        One of each kind in turn: of the servers, and of the clients that hold slots.
        """
        processes = self.servers
        if self._client == "agents" or (self._kills % 2 and self._client != "sockets"):
            processes = self.clients
        self._kills += 1
        place = random.randrange(len(processes))
        killed = processes[place]
        self.history.killed[killed.pid] = killed.kill()
        if processes is self.servers:
            processes[place] = self._start_server(self._ports[place])
        else:
            processes[place] = self._start_client()

    def until(self, condition: Callable[[], object], name: str, patience: float) -> None:
        """Wait for a condition; raises with the output of a process that has ended."""

        def holds() -> object:
            for process in (*self.servers, *self.clients):
                process.check()
            return condition()

        until_now(holds, name, patience=patience)

    def finish(self) -> None:
        """End the clients, and then the servers, in good order."""
        for processes in (self.clients, self.servers):
            for process in processes:
                process.ask_to_end()
            for process in processes:
                process.finish()

    def requests(self) -> int:
        """Return how many requests have ended."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*.fates"))

    def fates(self) -> Counter[str]:
        """Return how requests ended."""
        return Counter(noted["fate"] for noted in self._read("*.fates"))

    def lost(self) -> int:
        """Return how many leases were lost."""
        return sum(noted["event"] == "Lost" for noted in self._read("*.events"))

    def bodies(self) -> list[Body]:
        """Return all bodies."""
        return read(self.folder.glob("*.notes"))

    def disagreements(self) -> list[str]:
        """Return where the events of a process have no end, or come twice, as text."""
        return disagreements(self.folder.glob("*.events"), {}, self.history.killed)

    def said(self) -> str:
        """Return what the processes logged."""
        return "\n".join(process.said() for process in (*self.servers, *self.clients))

    def _start_server(self, port: int) -> WebProcess:
        parser = random.choice(["h11", "httptools"])
        return self._start("web_server", SERVER, port=port, parser=parser)

    def _start_client(self) -> WebProcess:
        imports = AGENTS if self._client == "agents" else CLIENT
        return self._start("web_client", imports, client=self._client, ports=self._ports)

    def _start(self, module: str, imports: tuple[str, ...], **given: Any) -> WebProcess:
        process = WebProcess(
            module, imports, {"url": self._url, "notes": str(self.folder), **given}
        )
        self._processes.callback(process.close)
        return process

    def _read(self, pattern: str) -> list[dict[str, Any]]:
        texts = [path.read_text(encoding="utf-8") for path in self.folder.glob(pattern)]
        # What follows the last line break was cut off by a kill.
        return [json.loads(line) for text in texts for line in text.split("\n")[:-1]]
