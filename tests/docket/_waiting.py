"""Tasks that hold a slot until the test ends them, and the states of tasks."""

from __future__ import annotations

# ruff: noqa: B008
from typing import Any

from docket import Docket, Execution

from limiter_docket import LIMIT_BY, ConcurrencyLimit
from tests.docket._tools import (
    TaskRecord,
    limiter_of,
)


def holding(record: TaskRecord, **options: Any) -> Any:
    """Return a task whose bodies are held, one at a time."""

    async def task(
        n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("k"), 1, **options)
    ) -> None:
        await record.hold(n)

    return task


async def states(*executions: Execution) -> list[str]:
    for each in executions:
        await each.sync()
    return [each.state.value for each in executions]


async def waiting_in(docket: Docket, key: str = "k") -> int:
    snapshot = await (await limiter_of(docket)).inspect(key)
    return snapshot.waiting
