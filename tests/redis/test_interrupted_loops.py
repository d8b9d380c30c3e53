"""An exception thrown into an event loop at any line of the package: nobody waits for ever.

A signal handler may raise at any of them: in the task that asks, where it is that one's, and in
what the loop calls when it sends and receives, where it is the loop's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from limiter_core import ConcurrencyLimit, Limiter
from limiter_redis import RedisStore
from tests.core._throw import Thrower, Thrown

from ._servers import Process
from ._tools import until_true

SLOW = os.environ.get("LIMITER_SLOW_TESTS") == "1"
EVERY = 1 if SLOW else 3
"""How many lines there are for one that is interrupted. In the slow run each is, several times."""
SOME = 30
"""The same, where each is interrupted by another test."""
TASKS = 3
ENDS_IN = 10.0
"""Seconds in which all have what they asked for; what hangs would do so for ever."""


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    """A store on one server, or in a cluster."""
    store = RedisStore(f"{url}?socket_timeout=2")
    yield store
    await store.aclose()


async def hold(limiter: Limiter, limit: ConcurrencyLimit, number: int) -> None:
    """Hold a key of its own, then one that all want."""
    async with limiter.hold(limit, {"id": number}):
        pass
    async with limiter.hold(limit, {"id": "shared"}):
        await asyncio.sleep(0)


async def trial(store: RedisStore, thrower: Thrower, *, in_task: bool) -> None:
    """Have tasks ask in the same turns, and an exception thrown into one, or into what they use."""
    limiter = Limiter(store)
    limit = ConcurrencyLimit("id", 1, scope=f"at-{thrower.at}", lease=60)
    tasks = [asyncio.create_task(hold(limiter, limit, number)) for number in range(TASKS)]
    if in_task:
        thrower.task = tasks[0]
    else:
        thrower.leaves_out = tasks
    with thrower.tracing():
        _, pending = await asyncio.wait(tasks, timeout=ENDS_IN)
    for task in pending:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not pending, f"{len(pending)} wait for ever: {thrower.where}"
    if in_task:
        assert isinstance(outcomes[0], Thrown) == thrower.has_thrown, "it was swallowed"
        outcomes[0] = None
    assert outcomes == [None] * TASKS, thrower.where


async def nothing_is_left(store: RedisStore) -> bool:
    return not store.session.tracker.entries and not [key async for key in Limiter(store).keys()]


IN = pytest.mark.parametrize("where", ["in the task that asks", "in what the loop calls"])


@IN
async def test_at_some_lines(own_server: Process, where: str) -> None:
    store = RedisStore(f"{own_server.url}?socket_timeout=2")
    await sweep(store, where, every=SOME)
    await store.aclose()


@pytest.mark.exhaustive
@IN
async def test_at_every_line(store: RedisStore, where: str) -> None:
    await sweep(store, where, every=EVERY)


async def sweep(store: RedisStore, where: str, *, every: int) -> None:
    in_task = where == "in the task that asks"
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    counting = Thrower(0)
    await trial(store, counting, in_task=in_task)
    for at in counting.interesting(once=not SLOW)[::every]:
        thrower = Thrower(at)
        await trial(store, thrower, in_task=in_task)
    others = [each for each in told if not isinstance(each.get("exception"), Thrown)]
    assert not others
    await until_true(lambda: nothing_is_left(store), "all slots come back")
