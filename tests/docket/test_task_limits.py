"""The limits of a task are looked for once, and are those of the function that is run."""

# ruff: noqa: B008

from __future__ import annotations

from typing import Any

from docket import Docket

from limiter_docket import LIMIT_BY, ConcurrencyLimit
from tests.docket._tools import until, working


async def test_a_limit_given_by_the_caller_is_not_taken_nor_by_a_task_behind_it(
    any_docket: Docket,
) -> None:
    given: list[bool] = []

    async def bill(
        n: int,
        c: Any = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1),
        d: Any = ConcurrencyLimit(LIMIT_BY.constant("two"), max_concurrent=1),
    ) -> None:
        given.extend(each is None for each in (c, d))

    async with working(any_docket, concurrency=1):
        for n, arguments in enumerate(({}, {"c": None}, {}, {"d": None, "c": None})):
            await any_docket.add(bill)(n, **arguments)
            await until(lambda ended=n + 1: len(given) == 2 * ended, "the task ends")
    assert given == [False, False, True, False, False, False, True, True]


async def test_a_function_that_takes_the_place_of_another_has_its_own_limits(
    any_docket: Docket,
) -> None:
    keys: list[str] = []

    async def run(name: str) -> None:
        async def bill(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant(name))) -> None:
            keys.append(c.concurrency_key)

        await any_docket.add(bill)()
        await until(lambda: keys[-1:] == [name], f"the function with limit {name} is run")

    async with working(any_docket):
        await run("one")
        await run("two")
    assert keys == ["one", "two"]
