"""A task that waits while its workers are replaced by those of another deployment."""

from __future__ import annotations

# ruff: noqa: B008
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from docket import Docket

from limiter_core import ConcurrencyLimit as Limit
from limiter_core import Limiter
from limiter_docket import LIMIT_BY, ConcurrencyLimit, set_store, store_of
from tests.docket._tools import parked, until_true, working

CLAIM = 30.0
"""Seconds for which a slot would be kept for a task that does not take it."""

OLD, NEW = (Limit(LIMIT_BY.constant(name), 1) for name in ("old", "new"))


async def changes_old(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("old"), 1)) -> None:
    """Run."""


async def changes_new(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("new"), 1)) -> None:
    """Run."""


async def changes_free() -> None:
    """Run."""


async def stays(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("old"), 1)) -> None:
    """Run."""


Deploy = Callable[..., Awaitable[Docket]]


@pytest.fixture
async def deploy(docket: Docket) -> AsyncIterator[Deploy]:
    """Return the same docket as another deployment has it: with these tasks."""
    set_store(docket, claim=CLAIM)
    opened: list[Docket] = []

    async def open_docket(**tasks: Any) -> Docket:
        opened.append(Docket(name=docket.name, url=docket.url))
        await opened[-1].__aenter__()
        for name, task in tasks.items():
            opened[-1].register(task, names=[name])
        return opened[-1]

    yield open_docket
    for each in opened:
        await each.__aexit__(None, None, None)


@pytest.fixture
async def limiter(docket: Docket) -> AsyncIterator[Limiter]:
    """The limits of the tasks, as another program uses them."""
    async with Limiter(await store_of(docket)) as limiter:
        yield limiter


async def wait_in_old_workers(deploy: Deploy) -> tuple[Any, Any]:
    """Have two tasks wait for the old limit, the one that changes in front."""
    old = await deploy(changes=changes_old, stays=stays)
    async with working(old):
        changed = await old.add("changes")()
        await until_true(parked(old, 1), "it waits")
        stayed = await old.add("stays")()
        await until_true(parked(old, 2), "both wait")
    return changed, stayed


async def ended(*tasks: Any) -> None:
    """Wait until tasks have ended well, in half of the claim time."""
    async with asyncio.timeout(CLAIM / 2):
        for task in tasks:
            await task.get_result(timeout=timedelta(seconds=CLAIM))


@pytest.mark.parametrize(
    "tasks",
    [{}, {"changes": changes_free}, {"changes": changes_new}],
    ids=["gone", "without a limit", "with another limit"],
)
async def test_its_slot_goes_to_the_next_at_once(
    deploy: Deploy, limiter: Limiter, tasks: dict[str, Any]
) -> None:
    async with limiter.hold(OLD):
        changed, stayed = await wait_in_old_workers(deploy)
        new = await deploy(stays=stays, **tasks)
    async with working(new):
        await ended(stayed, changed)


async def test_a_task_that_comes_back_by_itself_leaves_the_line_of_its_old_limit(
    deploy: Deploy, limiter: Limiter, docket: Docket
) -> None:
    async with limiter.hold(NEW), limiter.hold(OLD):
        changed, stayed = await wait_in_old_workers(deploy)
        async with docket.redis() as redis:  # as if it was parked for long
            await redis.zadd(docket.queue_key, {changed.key: 0})
        async with working(await deploy(stays=stays, changes=changes_new)):

            async def waits_again() -> bool:
                return (await limiter.inspect(NEW)).waiting == 1

            await until_true(waits_again, "it waits for its new limit")
            found = await limiter.inspect(OLD)
            assert found.waiting == 1
    async with working(await deploy(stays=stays, changes=changes_new)):
        await ended(stayed, changed)


async def test_it_waits_in_one_line(deploy: Deploy, limiter: Limiter) -> None:
    """For the limit that its function has now: the slot of the other is free for others."""
    async with limiter.hold(NEW):
        async with limiter.hold(OLD):
            changed, stayed = await wait_in_old_workers(deploy)
        new = await deploy(stays=stays, changes=changes_new)
        async with working(new):
            await ended(stayed)
            assert (await limiter.inspect(NEW)).waiting == 1
    async with working(new):
        await ended(changed)
