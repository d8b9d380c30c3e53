"""An exception that is thrown in while a call is given up because of another one."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.requests import Answer, Request
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))


class Interrupted(BaseException):
    """As a second Ctrl-C."""


class InterruptingStore(MemoryStore):
    """Is interrupted when a call asks for the last time, and when that is given up."""

    asked = 0

    def acquire(self, request: Request) -> Answer:
        self.asked += 1
        if self.asked == 3:
            raise Interrupted
        return super().acquire(request)

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        raise Interrupted


WAITS = "the limiter keeps the call, and its slot with it"


def test_a_thread_waits_no_more() -> None:
    limiter = SyncLimiter(InterruptingStore())
    lease = limiter.acquire(ONE)
    with pytest.raises(Interrupted):
        limiter.acquire(ONE, timeout=0.05)
    assert not limiter._engine.waiting, WAITS
    lease.release()


async def test_a_task_waits_no_more() -> None:
    limiter = Limiter(InterruptingStore())
    lease = await limiter.acquire(ONE)
    with anyio.fail_after(5), pytest.raises(Interrupted):
        await limiter.acquire(ONE, timeout=0.05)
    assert not limiter._engine.waiting, WAITS
    await lease.release()
