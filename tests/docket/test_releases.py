"""When a task gives its slots back, and what is known of it afterwards."""

from __future__ import annotations

# ruff: noqa: B008
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from docket import CurrentExecution, Depends, Docket, Execution, Retry, TaskLogger

from limiter_docket import LIMIT_BY, ConcurrencyLimit
from limiter_docket._run import runs
from tests.docket._tools import TaskRecord, finish, until, working

ONE = LIMIT_BY.constant("one")


def delay_record(execution: Execution, record: TaskRecord) -> None:
    """Have Docket record the end of a task only when the test goes on."""
    held: Any = execution
    mark = held._mark_as_terminal

    async def mark_later(*args: Any, **options: Any) -> None:
        record.began.append("the record of its end")
        await record.go_on.wait()
        await mark(*args, **options)

    held._mark_as_terminal = mark_later


async def test_the_next_task_begins_while_docket_records_the_end_of_the_first(
    any_docket: Docket,
) -> None:
    record = TaskRecord()

    async def limited(
        n: int,
        execution: Execution = CurrentExecution(),
        retry: Retry = Retry(attempts=2),
        logger: Any = TaskLogger(),
        c: ConcurrencyLimit = ConcurrencyLimit(ONE),
    ) -> None:
        if not record.began:
            delay_record(execution, record)
        await record.body(n)

    async with working(any_docket):
        for n in range(2):
            await any_docket.add(limited)(n)
        await until(lambda: {0, 1} <= set(record.began), "the next task begins")
        assert not record.go_on.is_set()
        record.release_all()


async def test_a_slot_is_held_until_the_dependencies_of_its_task_are_left(
    any_docket: Docket,
) -> None:
    record = TaskRecord()

    @asynccontextmanager
    async def connection() -> AsyncGenerator[str, None]:
        yield "connection"
        record.began.append("closed")

    async def limited(
        n: int,
        execution: Execution = CurrentExecution(),
        c: ConcurrencyLimit = ConcurrencyLimit(ONE),
        db: str = Depends(connection),
    ) -> None:
        await record.body(n)

    for n in range(2):
        await any_docket.add(limited)(n)
    await finish(any_docket)
    assert record.began in ([0, "closed", 1, "closed"], [1, "closed", 0, "closed"])


@pytest.mark.parametrize("fails", [False, True], ids=["completes", "fails"])
async def test_nothing_is_kept_of_a_task_that_has_ended(any_docket: Docket, fails: bool) -> None:
    record = TaskRecord()

    async def limited(n: int, c: ConcurrencyLimit = ConcurrencyLimit(ONE)) -> None:
        await record.body(n, 0.001)
        if fails:
            raise RuntimeError("so it goes")

    before = len(runs)
    for n in range(5):
        await any_docket.add(limited)(n)
    await finish(any_docket)
    gc.collect()
    assert len(record.began) == 5
    assert len(runs) == before
