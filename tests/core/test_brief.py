"""What was given stands in errors: at most 200 characters of it, and no password."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from limiter_asgi import LimitMiddleware
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    SyncLimiter,
    observe,
    register_key_type,
)
from limiter_core.brief import LONGEST, brief
from limiter_core.jobs import JobGate
from limiter_core.registry import open_store
from limiter_httpx import AsyncLimitedTransport, LimitedTransport
from limiter_redis import RedisStore
from limiter_web import limits_app

LIMIT = ConcurrencyLimit("key")
URL = "redis://user:secret@host/0?password=secret"


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


async def _app(*_: object) -> None: ...


TAKERS: dict[str, Callable[[Any], object]] = {
    "max_concurrent": lambda value: ConcurrencyLimit("key", value),
    "by": lambda value: ConcurrencyLimit({"by": value}),  # type: ignore[arg-type]
    "on_conflict": lambda value: ConcurrencyLimit("key", on_conflict=value),
    "priority": lambda value: ConcurrencyLimit("key", priority=value),
    "lease": lambda value: ConcurrencyLimit("key", lease=value),
    "timeout": lambda value: ConcurrencyLimit("key", timeout=value),
    "name": lambda value: ConcurrencyLimit("key", name=[value]),  # type: ignore[arg-type]
    "scope": lambda value: ConcurrencyLimit("key", scope=[value]),  # type: ignore[arg-type]
    "on_lost": lambda value: ConcurrencyLimit("key", on_lost=value),
    "an option": lambda value: ConcurrencyLimit("key", **{f"{value}": 1}),  # type: ignore[arg-type]
    "fn": LIMIT_BY.fn,
    "constant": lambda value: LIMIT_BY.constant([value]),  # type: ignore[arg-type]
    "a path": lambda value: ConcurrencyLimit(f"..{value}"),
    "on_store_error": lambda value: Limiter("memory://", on_store_error=value),
    "observe": observe,
    "limits": lambda value: SyncLimiter("memory://").try_acquire(value),
    "arguments": lambda value: SyncLimiter("memory://").try_acquire(LIMIT, value),
    "a function": Limiter("memory://").limited(LIMIT),
    "a key": lambda value: SyncLimiter("memory://").evict([value]),  # type: ignore[arg-type]
    "a type": lambda value: register_key_type(value, str),
    "a gate's name": lambda value: JobGate("memory://", f"{value}\0", print),
    "a store": lambda value: open_store(f"x{value}"),
    "a limiter of a transport": lambda value: LimitedTransport(value, LIMIT),
    "a limiter of an async transport": lambda value: AsyncLimitedTransport(value, LIMIT),
    "a limiter of a middleware": lambda value: LimitMiddleware(_app, value, LIMIT),
    "on_refused": lambda value: LimitMiddleware(
        _app, Limiter("memory://"), LIMIT, on_refused=value
    ),
    "a namespace": lambda value: RedisStore("redis://", namespace=f"\n{value}"),
    "trace_url": lambda value: limits_app("memory://", trace_url=f"ftp{value}"),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("value", [URL, "x" * 10_000], ids=["a URL", "a long text"])
def test_an_error_shows_some_of_what_was_given(take: Callable[[Any], object], value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        take(value)
    said = str(refused.value)
    assert "secret" not in said
    assert len(said) < LONGEST + 600  # a list of what is allowed, too


@pytest.mark.parametrize("take", [TAKERS["max_concurrent"], TAKERS["priority"], TAKERS["lease"]])
@pytest.mark.parametrize("value", [-(10**6000), _Unprintable()], ids=["digits", "unprintable"])
def test_what_cannot_be_shown_is_named_by_its_type(
    take: Callable[[Any], object], value: object
) -> None:
    with pytest.raises(ConfigurationError, match=type(value).__name__):
        take(value)


def test_passwords_are_found_within_other_values() -> None:
    assert "secret" not in brief({"url": URL})
    assert "secret" not in brief(functools.partial(print, URL))
    assert brief("a" * LONGEST)[-1] == "…"
    assert "secret" not in brief("redis://user:" + "secret" * 100 + "@host")
    assert brief("me@example.com") == "'me@example.com'"
