"""How tests wait for what another task, thread or process does: for a condition, by its name."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

PATIENCE = 20.0
"""Seconds after which a condition that should come true is given up: far above any slow machine."""

T = TypeVar("T")


def _pause(began: float, name: str, patience: float) -> float:
    """Return the seconds until the next look; fails once there was no more time to wait.

    Short at first, for most comes true at once; each look takes time from what it waits for.
    """
    waited = time.monotonic() - began
    assert waited < patience, f"never came true in {patience} s: {name}"
    return min(0.02, max(0.001, waited / 10))


def until_now(condition: Callable[[], T], name: str, *, patience: float = PATIENCE) -> T:
    """Wait in a thread until the named condition holds; returns what it returned."""
    began = time.monotonic()
    while not (found := condition()):
        pause = _pause(began, name, patience)
        time.sleep(pause)
    return found


async def until(condition: Callable[[], T], name: str, *, patience: float = PATIENCE) -> T:
    """Wait in an event loop until the named condition holds; returns what it returned."""
    began = time.monotonic()
    while not (found := condition()):
        pause = _pause(began, name, patience)
        await anyio.sleep(pause)
    return found


async def until_true(
    condition: Callable[[], Awaitable[T]], name: str, *, patience: float = PATIENCE
) -> T:
    """Wait in an event loop until the named condition, which has to be awaited, holds."""
    began = time.monotonic()
    while not (found := await condition()):
        pause = _pause(began, name, patience)
        await anyio.sleep(pause)
    return found
