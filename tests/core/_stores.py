"""A store that takes its time and can go away: what a network puts between limiter and store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from anyio.lowlevel import checkpoint

from limiter_core import StoreUnavailable
from limiter_core.requests import Loss, Request
from limiter_core.store import Capabilities
from limiter_memory import MemoryStore

OPERATIONS = ("renew", "evict", "sweep", "inspect", "set_limit", "reset_limit", "pause", "resume")


class RemoteStore:
    """A memory store behind a network of its own.

    Args:
        steps: how often an async operation suspends on its way there, and again on its way back.
        hints_only: waiters are told to ask again, not what the answer would be.
        sure_release: a release is carried out even if its caller is cancelled at once.

    Attributes:
        down: while True, every operation raises `StoreUnavailable`.
        asked: how many requests were sent, those that failed included.
    """

    def __init__(
        self, *, steps: int = 0, hints_only: bool = False, sure_release: bool = True
    ) -> None:
        self.inner = MemoryStore()
        self.steps = steps
        self.hints_only = hints_only
        self.sure_release = sure_release
        self.down = False
        self.asked = 0

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(
            self.inner.capabilities, suspends=True, sure_release=self.sure_release
        )

    def sync_face(self) -> _SyncFace:
        return _SyncFace(self)

    def async_face(self) -> _AsyncFace:
        return _AsyncFace(self)

    def check(self) -> None:
        if self.down:
            raise StoreUnavailable("no answer") from OSError("connection refused")

    def arrived(self, request: Request) -> Request:
        self.check()
        if self.hints_only and request.listener is not None:
            return request._replace(listener=_Hints(request.listener))
        return request


class _Hints:
    """A listener that is told when to ask again, but never what the answer is."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener

    def look_again(self, answer: object = None) -> bool:
        return self._listener.look_again()

    def lease_renewed(self, expires_at: float) -> None:
        self._listener.lease_renewed(expires_at)

    def lease_lost(self, loss: Loss) -> None:
        self._listener.lease_lost(loss)


class _SyncFace:
    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def now(self) -> float:
        return self._store.inner.now()

    def acquire(self, request: Request) -> Any:
        self._store.asked += 1
        return self._store.inner.acquire(self._store.arrived(request))

    def release(self, lease_id: str, keys: Any = ()) -> bool:
        self._store.check()
        return self._store.inner.release(lease_id, keys)

    def let_expire(self, lease_id: str) -> None:
        self._store.inner.let_expire(lease_id)

    def abandon(self, lease_id: str, keys: Any) -> None:
        if not self._store.down:
            self._store.inner.abandon(lease_id, keys)

    def keys(self) -> Any:
        self._store.check()
        return self._store.inner.keys()

    def close(self) -> None:
        pass


class _AsyncFace:
    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def now(self) -> float:
        return self._store.inner.now()

    async def acquire(self, request: Request) -> Any:
        self._store.asked += 1
        return await self._travel(lambda: self._store.inner.acquire(self._store.arrived(request)))

    async def release(self, lease_id: str, keys: Any = ()) -> bool:
        if not self._store.sure_release:
            return await self._travel(lambda: self._store.inner.release(lease_id, keys))
        self._store.check()
        found = self._store.inner.release(lease_id, keys)
        return await self._travel(lambda: found)

    def let_expire(self, lease_id: str) -> None:
        self._store.inner.let_expire(lease_id)

    def abandon(self, lease_id: str, keys: Any) -> None:
        if not self._store.down:
            self._store.inner.abandon(lease_id, keys)

    async def keys(self) -> Any:
        for key in await self._travel(lambda: list(self._store.inner.keys())):
            yield key

    async def aclose(self) -> None:
        pass

    async def _travel(self, operation: Callable[[], Any]) -> Any:
        for _ in range(self._store.steps):
            await checkpoint()
        self._store.check()
        answer = operation()
        for _ in range(self._store.steps):
            await checkpoint()
        return answer


def _forward(name: str) -> None:
    def forwarded(self: Any, *args: Any) -> Any:
        self._store.check()
        return getattr(self._store.inner, name)(*args)

    async def travelled(self: Any, *args: Any) -> Any:
        return await self._travel(lambda: getattr(self._store.inner, name)(*args))

    setattr(_SyncFace, name, forwarded)
    setattr(_AsyncFace, name, travelled)


for _name in OPERATIONS:
    _forward(_name)
