"""Deliveries of a job in the memory store: what one gives back is its own, in one step."""

from __future__ import annotations

from types import TracebackType

import pytest

from limiter_core.requests import Demand, Granted, Held, Request
from limiter_memory import MemoryStore


def delivery(claimant: str) -> Request:
    return Request("job", (Demand("k", 1),), payload=b"x", claimant=claimant)


class PassedOn:
    """The lock of a store; whoever waits for it first finds that the job was evicted meanwhile."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._lock = store._lock

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> None:
        self._store._lock = self._lock
        self._store.evict("job")
        assert isinstance(self._store.acquire(delivery("second")), Granted)
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


@pytest.mark.parametrize("how", ["release_claim", "abandon"])
def test_a_delivery_that_waits_for_its_step_gives_back_nothing_of_the_next_one(how: str) -> None:
    store = MemoryStore()
    assert isinstance(store.acquire(delivery("first")), Granted)
    store._lock = PassedOn(store)  # type: ignore[assignment]
    if how == "abandon":
        store.abandon("job", ["k"], "first")
    else:
        assert not store.release_claim("job", ["k"], "first")
    assert isinstance(store.acquire(delivery("third")), Held)
    assert store.release_claim("job", ["k"], "second")
