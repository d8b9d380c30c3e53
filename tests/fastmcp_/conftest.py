"""A store that is empty at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_memory import MemoryStore


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store that must be empty again when the test is over."""
    store = MemoryStore()
    yield store
    assert list(store.keys()) == [], "the test left slots, tickets or overrides behind"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
