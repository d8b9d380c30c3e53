"""Jobs of arq for the burst of tests/_job_events.py."""

from __future__ import annotations

from typing import Any

from arq.connections import RedisSettings

from limiter_arq import ConcurrencyLimit, limited
from tests._job_events import URL, body, by, observe, options_of

observe()


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(by(name), **options_of(name))


@limited(limit("plain"))
async def plain(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


@limited(limit("once"))
async def once(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


@limited(limit("hurried"))
async def hurried(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


@limited(limit("crowded"))
async def crowded(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


@limited(limit("latest"))
async def latest(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


@limited(limit("newest"))
async def newest(ctx: dict[Any, Any], name: str) -> None:
    await body(name)


class WorkerSettings:
    functions = (plain, once, hurried, crowded, latest, newest)
    redis_settings = RedisSettings.from_dsn(URL)
    allow_abort_jobs = True
    poll_delay = 0.1
    keep_result = 60
