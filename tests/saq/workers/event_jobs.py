"""Jobs of SAQ for the burst of tests/_job_events.py."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from limiter_saq import ConcurrencyLimit, LimitedQueue
from tests._job_events import OPTIONS, URL, body, by, observe, options_of

observe()


async def plain(ctx: Any, *, name: str) -> None:
    await body(name)


async def once(ctx: Any, *, name: str) -> None:
    await body(name)


async def hurried(ctx: Any, *, name: str) -> None:
    await body(name)


async def crowded(ctx: Any, *, name: str) -> None:
    await body(name)


async def latest(ctx: Any, *, name: str) -> None:
    await body(name)


async def newest(ctx: Any, *, name: str) -> None:
    await body(name)


client: Any = Redis.from_url(URL, socket_timeout=None)
queue = LimitedQueue(
    client,
    limits={name: ConcurrencyLimit(by(name), **options_of(name)) for name in OPTIONS},
)
FUNCTIONS: list[Any] = [plain, once, hurried, crowded, latest, newest]
settings = {"queue": queue, "functions": FUNCTIONS, "timers": {"schedule": 1, "abort": 1}}
