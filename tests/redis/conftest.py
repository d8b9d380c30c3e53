"""Fixtures of the tests on real servers.

`server` is a server that the tests share, empty at the beginning of each; after each no key may be
left without an expiry. Every test runs on the first of `_servers.sources()`, and those marked
`every_server` on each. Tests marked `slow` run with `-m slow`, or with `LIMITER_SLOW_TESTS=1`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from limiter_redis import RedisStore
from limiter_redis.session.session import _sessions as open_sessions
from tests.faults._sentinel import Sentinel

from ._fake_time import TIME_KEY, ServerClock
from ._processes import Worker
from ._servers import OneNode, Process, Server, open_source, server_program, sources


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_server: runs on every server that there is")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        names = sources()
        everywhere = any(metafunc.definition.iter_markers("every_server"))
        metafunc.parametrize("source", names if everywhere else names[:1], scope="session")


@pytest.fixture
def anyio_backend() -> str:
    """redis-py knows asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def running(source: str) -> Iterator[Server]:
    """The server, for all tests of a session."""
    server = open_source(source)
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server, empty."""
    for session in list(open_sessions):  # what the test before left open would write into this one
        session.tracker.requests.clear()
        session.close()
    running.admin.flushdb()
    yield running
    left = [name for name in running.keys_without_expiry() if name != TIME_KEY]
    assert not left, f"keys that never expire were left behind (S14): {left}"


@pytest.fixture(params=[Process, OneNode], ids=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that one test may mistreat, alone and as a cluster of one node."""
    program = server_program()
    server = request.param(program)
    yield getattr(server, "cluster_url", server.url)
    server.close()


@pytest.fixture
def clock(server: Server) -> ServerClock:
    """The time of a script made of `FAKED`."""
    return ServerClock(server)


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    """A store, on the server's real time."""
    store = RedisStore(server.url)
    yield store
    store.close()


@pytest.fixture
async def astore(server: Server) -> AsyncIterator[RedisStore]:
    """The same, for tests in an event loop."""
    store = RedisStore(server.url)
    yield store
    await store.aclose()


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Start worker processes: `start("hold.py", url=..., limit={...})`. None outlives the test."""
    workers: list[Worker] = []

    def start_one(script: str, **given: Any) -> Worker:
        workers.append(Worker(script, **given))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.close()


@pytest.fixture(scope="module")
def running_sentinel() -> Iterator[Sentinel]:
    with closing(Sentinel()) as sentinel:
        yield sentinel


@pytest.fixture
def sentinel(running_sentinel: Sentinel) -> Sentinel:
    """Whole, whatever the test before did to it."""
    running_sentinel.until_whole()
    return running_sentinel
