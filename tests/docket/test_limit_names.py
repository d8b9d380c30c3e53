"""What the limits of a task are called, for `inspect`, events and metrics."""

# ruff: noqa: B008

from __future__ import annotations

from typing import Annotated

from docket import Docket

from limiter_docket import LIMIT_BY, ConcurrencyLimit
from tests.docket._tools import finish, limiter_of


async def test_a_limit_has_the_name_that_it_was_given_or_that_of_its_parameter(
    any_docket: Docket,
) -> None:
    named: list[str] = []

    async def bill(
        customer_id: Annotated[int, ConcurrencyLimit(1, name="billing")],
        region: Annotated[str, ConcurrencyLimit(2)],
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.fn(lambda args: args["region"])),
    ) -> None:
        limiter = await limiter_of(any_docket)
        named.extend([(await limiter.inspect(key)).name for key in c.keys])

    await any_docket.add(bill)(customer_id=7, region="eu")
    await finish(any_docket)
    assert sorted(named) == ["bill", "billing", "region"]
