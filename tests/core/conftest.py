"""Fixtures of the core's tests: every async test runs on asyncio and on trio."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core import Limiter, SyncLimiter
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until a test moves it."""
    return FakeClock()


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store that must be empty again when the test is over."""
    store = MemoryStore()
    yield store
    assert list(store.keys()) == [], "the test left slots, tickets or overrides behind"


@pytest.fixture
def limiter(store: MemoryStore) -> Limiter:
    return Limiter(store)


@pytest.fixture
def threads(store: MemoryStore) -> SyncLimiter:
    """The sync limiter on the same store as `limiter`."""
    return SyncLimiter(store)
