"""Tasks of Docket for the burst of tests/_job_events.py."""

# ruff: noqa: B008  (that is how Docket's tasks declare what they need)

from __future__ import annotations

from typing import Any

from limiter_docket import ConcurrencyLimit
from tests._job_events import body, by, observe, options_of

observe()


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(by(name), **options_of(name))


async def plain(name: str, lease: ConcurrencyLimit = limit("plain")) -> None:
    await body(name)


async def once(name: str, lease: ConcurrencyLimit = limit("once")) -> None:
    await body(name)


async def hurried(name: str, lease: ConcurrencyLimit = limit("hurried")) -> None:
    await body(name)


async def crowded(name: str, lease: ConcurrencyLimit = limit("crowded")) -> None:
    await body(name)


async def latest(name: str, lease: ConcurrencyLimit = limit("latest")) -> None:
    await body(name)


async def newest(name: str, lease: ConcurrencyLimit = limit("newest")) -> None:
    await body(name)


tasks: list[Any] = [plain, once, hurried, crowded, latest, newest]
