"""What a lost slot does to a task: preempted or evicted, short or long. (All are coroutines.)"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from docket import Docket

from limiter_core import LeaseLost
from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConflictResolution
from tests.redis._tools import until

from ._tools import limiter_of, working

KEY = "k"


def task_of(ended: list[int], begun: list[int], leases: list[str], **options: Any) -> Any:
    limit = ConcurrencyLimit(LIMIT_BY.constant(KEY), 1, **options)

    async def work(number: int, seconds: float, c: ConcurrencyLimit = limit) -> int:
        begun.append(number)
        leases.append(c.id)
        await asyncio.sleep(seconds)
        ended.append(number)
        return number

    return work


@pytest.mark.parametrize("seconds", [0.5, 30.0])
async def test_a_newer_task_has_the_older_cancelled_at_once(
    any_docket: Docket, seconds: float
) -> None:
    ended, begun = list[int](), list[int]()
    work = task_of(ended, begun, [], on_conflict=ConflictResolution.CANCEL_RUNNING)
    async with working(any_docket):
        older = await any_docket.add(work)(1, seconds)
        await until(lambda: begun == [1], "it runs")
        newer = await any_docket.add(work)(2, 0.0)
        assert await newer.get_result(timeout=timedelta(seconds=20)) == 2
    await older.sync()
    assert older.state.value == "cancelled"
    assert (begun, ended) == ([1, 2], [2])


@pytest.mark.parametrize("seconds", [0.5, 30.0])
async def test_an_evicted_task_is_cancelled_and_fails(any_docket: Docket, seconds: float) -> None:
    ended, begun, leases = list[int](), list[int](), list[str]()
    work = task_of(ended, begun, leases)
    async with working(any_docket):
        evicted = await any_docket.add(work)(1, seconds)
        await until(lambda: leases, "it runs")
        await (await limiter_of(any_docket)).evict(leases[0])
        with pytest.raises(LeaseLost):
            await evicted.get_result(timeout=timedelta(seconds=20))
        after = await any_docket.add(work)(2, 0.0)
        assert await after.get_result(timeout=timedelta(seconds=20)) == 2
    assert (begun, ended) == ([1, 2], [2])
