"""What the tests on real servers share: waiting for a condition, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ._servers import PATIENCE

_PAUSE = 0.005


def until_now(condition: Callable[[], object], name: str, *, patience: float = PATIENCE) -> None:
    """Wait in a thread until the named condition holds."""
    give_up_at = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up_at, f"never came true in {patience} s: {name}"
        time.sleep(_PAUSE)


async def until(condition: Callable[[], object], name: str, *, patience: float = PATIENCE) -> None:
    """Wait in an event loop until the named condition holds."""
    give_up_at = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up_at, f"never came true in {patience} s: {name}"
        await asyncio.sleep(_PAUSE)


async def until_true(condition: Callable[[], Awaitable[object]], name: str) -> None:
    """Wait in an event loop until the named condition, which has to be awaited, holds."""
    give_up_at = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < give_up_at, f"never came true in {PATIENCE} s: {name}"
        await asyncio.sleep(_PAUSE)
