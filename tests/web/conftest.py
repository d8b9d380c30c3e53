"""Fixtures of the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from limiter_core.requests import Demand, Request
from limiter_memory import MemoryStore

from ._server import TOKEN, page

BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store() -> MemoryStore:
    """A store with one key that has a holder and two waiters, and one with a holder."""
    store = MemoryStore()
    for number in range(3):
        demand = Demand("billing/customer_id=1", 1, name="billing")
        store.acquire(Request(f"call-{number}", (demand,), lease=600, label=f"web-{number}"))
    store.acquire(Request("other", (Demand("openai", 5, name="openai"),), lease=600))
    return store


@pytest.fixture
def url(store: MemoryStore) -> Iterator[str]:
    with page(store) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client without the token."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def operator(url: str) -> Iterator[httpx.Client]:
    """A client with the token."""
    with httpx.Client(base_url=url, timeout=20, headers=BEARER) as client:
        yield client
