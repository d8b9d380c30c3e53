"""A server, a store that is empty at the end, and two clients with the same tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_memory import MemoryStore
from tests.http_clients._server import Server, running_server

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store that must be empty again when the test is over."""
    store = MemoryStore()
    yield store
    assert list(store.keys()) == [], "the test left slots, tickets or overrides behind"


class Client(NamedTuple):
    """An HTTP client with a limit, and all that a test looks at."""

    module: ModuleType
    """httpx or httpx2."""
    adapter: ModuleType
    store: MemoryStore

    def asynchronous(self, limits: Any = ONE, **options: Any) -> Any:
        """Return an `AsyncClient`."""
        transport = self.adapter.AsyncLimitedTransport(
            Limiter(self.store), limits, self.module.AsyncHTTPTransport(verify=False)
        )
        return self.module.AsyncClient(transport=transport, **options)

    def threaded(self, limits: Any = ONE, **options: Any) -> Any:
        """Return a `Client`."""
        transport = self.adapter.LimitedTransport(
            SyncLimiter(self.store), limits, self.module.HTTPTransport(verify=False)
        )
        return self.module.Client(transport=transport, **options)

    def in_use(self, key: str = "one") -> int:
        return self.store.inspect(key).in_use

    def collected(self) -> Callable[[], bool]:
        """Return a condition: what was dropped is collected, and no slot is in use.

        More than one collection may be needed: tasks that close a generator refer to it.
        """
        return lambda: gc.collect() >= 0 and self.in_use() == 0


@pytest.fixture(params=["httpx", "httpx2"])
def client(request: pytest.FixtureRequest, store: MemoryStore) -> Client:
    name: str = request.param
    return Client(import_module(name), import_module(f"limiter_{name}"), store)
