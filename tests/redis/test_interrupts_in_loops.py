"""Exceptions of signal handlers, while an event loop opens a connection: the next call works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, StoreUnavailable
from limiter_redis import RedisStore
from limiter_redis.transport.node_connection import NodeConnection

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, lease=60)


raised: list[None] = []
"""Whether it was raised."""


class Raised(Exception):
    """As a signal handler raises it."""


def raising_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises before its first line, once."""
    raised.clear()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not raised:
            raised.append(None)
            raise Raised
        return function(*args, **kwargs)

    return interrupted


async def next_call_works(store: RedisStore) -> None:
    """Make a call that is perhaps interrupted, and one more."""
    # A task's exception is reported when the task is collected, which may be after the test.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    limiter = Limiter(store)
    with suppress(Raised, StoreUnavailable):
        async with limiter.hold(LIMIT, timeout=0.6):
            pass
    assert raised
    async with limiter.hold(LIMIT, timeout=5):
        pass


async def test_as_a_connection_begins_to_open(store: RedisStore) -> None:
    class Interrupted(asyncio.Task[Any]):
        add_done_callback = raising_once(asyncio.Task.add_done_callback)

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        is_opening = coroutine.__qualname__ == "NodeConnection._open"
        return (Interrupted if is_opening else asyncio.Task)(coroutine, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(make)
    try:
        await next_call_works(store)
    finally:
        asyncio.get_running_loop().set_task_factory(None)


async def test_before_it_is_noted_that_a_connection_is_open(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeConnection, "_opened", raising_once(NodeConnection._opened))
    await next_call_works(store)
