"""Stores that were written for the protocol as it was: they lack what came into it later."""

from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_memory import MemoryStore

LATER = ("abandon", "let_expire")
LIMIT = ConcurrencyLimit(LIMIT_BY.constant("k"))


class SoftTimeLimit(Exception):
    """What a signal handler raises."""


class OlderFace:
    """The operations of a store without those of `LATER`; it may be interrupted after a step."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.interrupts = False

    def acquire(self, request: Any) -> Any:
        answer = self._inner.acquire(request)
        if self.interrupts:
            raise SoftTimeLimit
        return answer

    def __getattr__(self, name: str) -> Any:
        if name in LATER:
            raise AttributeError(name)
        return getattr(self._inner, name)


class OlderStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.face = OlderFace(super().sync_face())

    def sync_face(self) -> Any:
        return self.face

    def async_face(self) -> Any:
        return OlderFace(super().async_face())


def test_what_interrupts_a_call_comes_out_as_it_is():
    store = OlderStore()
    store.face.interrupts = True

    with pytest.raises(SoftTimeLimit):
        SyncLimiter(store).acquire(LIMIT)


async def test_a_lease_that_was_forgotten_is_told_of():
    limiter = Limiter(OlderStore())

    with pytest.warns(ResourceWarning, match="was never released"):
        await limiter.acquire(LIMIT)


def test_a_hold_works():
    with SyncLimiter(OlderStore()) as limiter, limiter.hold(LIMIT) as lease:
        assert not lease.lost
