"""Stores that were written for the protocol as it was: they lack what came into it later."""

from dataclasses import replace
from typing import Any

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    SyncLimiter,
)
from limiter_core.jobs import Job, JobGate, SyncJobGate, Waiting
from limiter_memory import MemoryStore

LATER = ("abandon", "let_expire", "evict_waiter")
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

    def inspect(self, key: str) -> Any:
        return self._inner.inspect(key)

    def sweep(self) -> Any:
        return self._inner.sweep()

    def on_notice(self, callback: Any) -> None:
        # It knows nothing of gates.
        self._inner.on_notice(callback and (lambda notice: callback(replace(notice, name=""))))

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


def test_a_call_that_waits_for_itself_is_told():
    limiter = SyncLimiter(OlderStore())

    with limiter.hold(LIMIT), pytest.raises(ConfigurationError, match="would wait for itself"):
        limiter.acquire(LIMIT, timeout=1)


def test_jobs_wait_and_are_woken():
    """None is dormant there; whose they are stands in their payloads."""
    woken = []
    gate = SyncJobGate(OlderStore(), "queue", woken.append)
    first = gate.admit(Job("first", LIMIT, ArgumentView({}, "f"), b"first"))
    assert isinstance(gate.admit(Job("second", LIMIT, ArgumentView({}, "f"), b"second")), Waiting)
    gate.sweep()
    first.release()
    assert [(notice.id, notice.payload) for notice in woken] == [("second", b"second")]
    gate.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_jobs_wait_and_are_woken_in_an_event_loop():
    woken = []
    async with JobGate(OlderStore(), "queue", woken.append) as gate:
        first = await gate.admit(Job("first", LIMIT, ArgumentView({}, "f"), b"first"))
        await gate.admit(Job("second", LIMIT, ArgumentView({}, "f"), b"second"))
        await first.release()
        assert [(notice.id, notice.payload) for notice in woken] == [("second", b"second")]
