"""A gate for jobs in either world, and stores that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from limiter_core import (
    ArgumentView,
    ConcurrencyLimit,
    StoreUnavailable,
)
from limiter_core.jobs import Held, Job, JobGate, SyncJobGate, Waiting
from limiter_core.requests import Answer, Granted, Loss, Notice, Request
from limiter_core.store import Capabilities
from limiter_core.testing import AwaitedStore
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit("customer", max_concurrent=1)

KEY = "customer=42"


def job(name: str, limits: Any = ONE, *, order: int | None = None) -> Job:
    return Job(f"{name}#1", limits, ArgumentView({"customer": 42}), name.encode(), order)


class Gate:
    """A gate of either world, driven from a test that is in neither."""

    def __init__(self, world: str, store: Any, name: str = "queue", **settings: Any) -> None:
        self.notices: list[Notice] = []
        self.wake: Callable[[Notice], object] = self.notices.append
        self.losses: list[Loss] = []
        self.taken: list[Any] = []
        kind: Any = JobGate if world == "async" else SyncJobGate
        self._runner = asyncio.Runner() if world == "async" else None
        self.gate = kind(store, name, self._on_notice, **settings)

    def _on_notice(self, notice: Notice) -> None:
        self.wake(notice)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.gate, name)
        return lambda *args: self.run(lambda: method(*args))

    def run(self, call: Callable[[], Any]) -> Any:
        if self._runner is None:
            return call()

        async def awaited() -> Any:
            return await call()

        return self._runner.run(awaited())

    def admit(self, asking: Job) -> Any:
        return self.run(lambda: self.gate.admit(asking, self.losses.append))

    def take(self, asking: Job) -> Any:
        outcome = self.admit(asking)
        assert not isinstance(outcome, Waiting | Held), f"{asking.ticket} was to run: {outcome}"
        self.taken.append(outcome)
        return outcome

    def park(self, asking: Job) -> Waiting:
        outcome = self.admit(asking)
        assert isinstance(outcome, Waiting), f"{asking.ticket} was to wait: {outcome}"
        return outcome

    def release(self, lease: Any) -> None:
        self.run(lease.release)

    def woken(self) -> list[str]:
        names = [notice.payload.decode() for notice in self.notices]
        self.notices.clear()
        return names

    def close(self) -> None:
        for lease in self.taken:
            self.release(lease)
        self.run(self.gate.aclose if self._runner is not None else self.gate.close)
        if self._runner is not None:
            self._runner.close()


class FlakyStore(MemoryStore):
    """Carries a request out and loses the answer, as often as it is told.

    What a job was granted unheard it gives back, as every store has to.
    """

    lost_answers = 0
    lost_withdrawals = 0
    lost_requests = 0
    away = False

    def acquire(self, request: Request) -> Answer:
        if self.away:
            raise StoreUnavailable("no route")
        answer = super().acquire(request)
        if self.lost_answers:
            self.lost_answers -= 1
            if request.payload is not None and isinstance(answer, Granted):
                self.release(request.id)
            raise StoreUnavailable("the connection broke")
        return answer

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        if self.away or self.lost_requests:
            self.lost_requests = 0
            raise StoreUnavailable("no route")
        found = super().withdraw(ticket_id, keys)
        if self.lost_withdrawals:
            self.lost_withdrawals -= 1
            raise StoreUnavailable("the connection broke")
        return found


class Faces:
    """A store of two given faces."""

    capabilities = Capabilities(suspends=False)

    def __init__(self, sync: Any, asynchronous: Any) -> None:
        self.sync_face = lambda: sync
        self.async_face = lambda: asynchronous


def flaky(store: FlakyStore) -> Faces:
    """Return a store both of whose faces fail as this one does."""
    return Faces(store, AwaitedStore(store))


class HastyStore(MemoryStore):
    """Tells of the loss of a lease before whoever asked for it has the answer."""

    def acquire(self, request: Request) -> Answer:
        answer = super().acquire(request)
        if isinstance(answer, Granted) and request.listener is not None:
            request.listener.lease_lost(Loss.PREEMPTED)
        return answer
