"""What the tests with a worker of their own share."""

from __future__ import annotations

from limiter_arq import LIMIT_BY, ConcurrencyLimit
from limiter_redis import RedisStore
from tests.redis._tools import until_true

KEY = "shared"
ONE = ConcurrencyLimit(LIMIT_BY.constant(KEY), 1)


async def is_waiting(store: RedisStore, count: int = 1) -> bool:
    """Whether so many jobs wait for the shared limit."""
    return (await store.async_face().inspect(KEY)).waiting == count


async def until_idle(store: RedisStore) -> None:
    """Wait until no job holds a slot or waits for one."""

    async def is_idle() -> bool:
        return [key async for key in store.async_face().keys()] == []

    await until_true(is_idle, "no job holds or waits")
