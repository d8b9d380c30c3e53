"""Fixtures of the tests of Celery: a server that is broker, backend and store, and workers.

Everything here runs real `celery worker` processes. `slow` as in tests/redis/conftest.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.redis._servers import Process, server_program

from ._rabbitmq_server import RabbitMQServer, program
from ._worker_processes import MakeWorkers, WorkerProcesses, close_apps


def _server() -> Process:
    program = server_program()
    return Process(program)


@pytest.fixture(scope="session")
def running() -> Iterator[Process]:
    """A server for all tests that start their own workers."""
    server = _server()
    yield server
    close_apps()
    server.close()


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitMQServer | None]:
    """A RabbitMQ, where one is installed. It takes five seconds of a core to start."""
    binary = program()
    if binary is None:
        yield None
        return
    server = RabbitMQServer(binary)
    yield server
    server.close()


@pytest.fixture
def url(running: Process) -> str:
    """The address of the server, emptied; databases go behind it."""
    running.admin.flushall()
    return running.url.removesuffix("/0")


@pytest.fixture
def make_workers(url: str) -> Iterator[MakeWorkers]:
    """Makes worker processes of an app; none outlives the test."""
    started: list[WorkerProcesses] = []

    def make(**given: Any) -> WorkerProcesses:
        started.append(WorkerProcesses(given.pop("url", url), **given))
        return started[-1]

    yield make
    for each in started:
        each.close()


_LATER = (pytest.param(each, marks=pytest.mark.slow) for each in ("threads", "gevent"))


@pytest.fixture(scope="module", params=["prefork", *_LATER])
def shop(request: pytest.FixtureRequest) -> Iterator[WorkerProcesses]:
    """One worker for all tests of a module; each takes users of its own.

    It outlives a test, so it has a server of its own: else it would take the tasks of others.
    """
    server = _server()
    preempting = request.param != "threads"
    workers = WorkerProcesses(
        server.url.removesuffix("/0"),
        pool=request.param,
        concurrency=4,
        preempting=preempting,
        limiter={"claim": 2.0},
    )
    try:
        workers.start()
        yield workers
    finally:
        workers.close()
        server.close()


@pytest.fixture
def user() -> str:
    """A user that no other test uses."""
    return uuid.uuid4().hex[:8]
