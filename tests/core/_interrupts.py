"""Exceptions that are raised at any line, and what has to hold afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    SyncLimiter,
)
from limiter_core.requests import Answer, Demand, Granted, Loss, Queued, Replaced, Request
from limiter_memory import MemoryStore

from ._throw import Thrower, Thrown

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)

TWO = ConcurrencyLimit(LIMIT_BY.constant("two"), max_concurrent=2)

LONG = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, max_hold=60)


class Other:
    """Another caller in this process, which waits or holds."""

    def __init__(self, store: MemoryStore, name: str, *demands: Demand, **more: Any) -> None:
        self.store = store
        self.told: list[Answer | None] = []
        self.lost: list[Loss] = []
        self.request = Request(name, demands, listener=self, **more)
        self.answer = store.acquire(self.request)

    def look_again(self, answer: Answer | None = None) -> bool:
        self.told.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        pass

    def lease_lost(self, loss: Loss) -> None:
        self.lost.append(loss)

    def is_granted(self) -> bool:
        """Whether it holds, by all that it was told; it asks when it was told to."""
        while isinstance(self.answer, Queued) and self.told:
            said = self.told.pop()
            self.told.clear()
            self.answer = self.store.acquire(self.request) if said is None else said
        return isinstance(self.answer, Granted)

    def leave(self) -> None:
        self.store.release(self.request.id)


def finish(store: MemoryStore, *others: Other) -> None:
    """Have all who wait served one after the other; then nobody is left, and all is free."""
    waiting = [other for other in others if not isinstance(other.answer, Replaced)]
    for _ in range(len(waiting)):
        served = [other for other in waiting if other.is_granted()]
        ended = [other for other in waiting if isinstance(other.answer, Replaced)]
        assert served or ended, "somebody waits though nobody holds"
        for other in served or ended:
            waiting.remove(other)
            other.leave()
        if not waiting:
            break
    assert not waiting
    assert list(store.keys()) == []
    limiter = SyncLimiter(store)
    for limit in (ONE, TWO):
        leases = [limiter.try_acquire(limit) for _ in range(limit.max_concurrent)]  # type: ignore[arg-type]
        assert all(leases), "a slot is missing"
        assert limiter.try_acquire(limit) is None, "there is a slot too many"
        for lease in leases:
            assert lease is not None
            lease.release()
    assert list(store.keys()) == []


def interrupt(thrower: Thrower, work: Callable[[], object]) -> None:
    """Do some work, of which the exception that is thrown into it must come out."""
    raised = False
    with thrower.tracing():
        try:
            work()
        except Thrown:
            raised = True
    assert raised == thrower.has_thrown, "it was swallowed"
