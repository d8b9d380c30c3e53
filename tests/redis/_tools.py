"""What the tests on real servers share: waiting for a condition, by name."""

from __future__ import annotations

import time
from typing import Any

from limiter_core import ConcurrencyLimit, Limiter
from tests._polling import until, until_now, until_true

__all__ = ("until", "until_now", "until_outlived", "until_true", "until_waiting")


async def until_outlived(lease: Any, seconds: float) -> None:
    """Wait until a lease has been renewed for longer than it lasts."""
    end = time.monotonic() + lease.expires_in()
    await until(
        lambda: lease.lost or time.monotonic() + lease.expires_in() > end + 1.2 * seconds,
        "it is renewed for longer than it lasts",
    )
    assert not lease.lost


async def until_waiting(limiter: Limiter, limit: ConcurrencyLimit, count: int) -> None:
    """Wait until so many calls wait for a limit that does not depend on the call."""

    async def enough() -> bool:
        return (await limiter.inspect(limit)).waiting == count

    await until_true(enough, f"{count} wait")
