"""The limit of the tests of agents, and what they wait for."""

from __future__ import annotations

from typing import Any

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

KEY = "model"


def limit(max_concurrent: int = 1, **options: Any) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(KEY), max_concurrent, **options)


def in_use(limiter: Limiter, count: int) -> Any:
    """Return a condition: so many slots are in use."""

    async def condition() -> bool:
        return (await limiter.inspect(KEY)).in_use == count

    return condition


def waiting(limiter: Limiter, count: int) -> Any:
    """Return a condition: so many calls wait."""

    async def condition() -> bool:
        return (await limiter.inspect(KEY)).waiting == count

    return condition
