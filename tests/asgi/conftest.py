"""A store whose state the tests see, beside the server that uses it; both of uvicorn's parsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limiter_core import Limiter
from limiter_memory import MemoryStore

from ._server import Server


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def limiter(store: MemoryStore) -> Limiter:
    return Limiter(store)


@pytest.fixture(params=["h11", "httptools"])
def parser(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(app: Any, parser: str = "httptools") -> Server:
        servers.append(Server(app, parser))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
