"""What the tests on real servers share: waiting for a condition, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from limiter_core import ConcurrencyLimit, Limiter
from tests._polling import pause_after

from ._servers import PATIENCE


def until_now(condition: Callable[[], object], name: str, *, patience: float = PATIENCE) -> None:
    """Wait in a thread until the named condition holds."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        assert waited < patience, f"never came true in {patience} s: {name}"
        time.sleep(pause_after(waited))


async def until(condition: Callable[[], object], name: str, *, patience: float = PATIENCE) -> None:
    """Wait in an event loop until the named condition holds."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        assert waited < patience, f"never came true in {patience} s: {name}"
        await asyncio.sleep(pause_after(waited))


async def until_outlived(lease: Any, seconds: float) -> None:
    """Wait until a lease has been renewed for longer than it lasts."""
    end = time.monotonic() + lease.expires_in()
    await until(
        lambda: lease.lost or time.monotonic() + lease.expires_in() > end + 1.2 * seconds,
        "it is renewed for longer than it lasts",
    )
    assert not lease.lost


async def until_true(condition: Callable[[], Awaitable[object]], name: str) -> None:
    """Wait in an event loop until the named condition, which has to be awaited, holds."""
    started = time.monotonic()
    while not await condition():
        waited = time.monotonic() - started
        assert waited < PATIENCE, f"never came true in {PATIENCE} s: {name}"
        await asyncio.sleep(pause_after(waited))


async def until_waiting(limiter: Limiter, limit: ConcurrencyLimit, count: int) -> None:
    """Wait until so many calls wait for a limit that does not depend on the call."""

    async def enough() -> bool:
        return (await limiter.inspect(limit)).waiting == count

    await until_true(enough, f"{count} wait")
