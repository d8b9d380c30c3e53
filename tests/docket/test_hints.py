"""A limit in the hints of a function that Docket does not see is refused, not ignored."""

from __future__ import annotations

# ruff: noqa: B008, F821
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from docket import Docket

from limiter_core import ConfigurationError
from limiter_docket import ConcurrencyLimit

if TYPE_CHECKING:
    from decimal import Decimal

ONE = ConcurrencyLimit(1)
Limited = Annotated[int, ConcurrencyLimit(1)]


async def beside(customer: Annotated[int, ConcurrencyLimit(1)], amount: Decimal) -> None: ...


async def of_the_result(customer: Annotated[int, ONE]) -> Decimal: ...


async def by_an_alias(customer: Limited, amount: dict[str, Decimal | None]) -> None: ...


async def around(amount: Annotated[Decimal, ConcurrencyLimit(1)]) -> None: ...


async def of_a_class(amount: Annotated[Decimal, ConcurrencyLimit]) -> None: ...


async def in_a_union(customer: Annotated[int, ConcurrencyLimit(1)] | None = None) -> None: ...


async def in_a_list(customers: list[Limited]) -> None: ...


async def returned(customer: int) -> Limited: ...


async def by_default(
    customer: int, amount: Decimal, c: ConcurrencyLimit = ConcurrencyLimit("customer")
) -> None: ...


async def outermost(customer: Annotated[int | None, ConcurrencyLimit(1)] = None) -> None: ...


async def without(amount: Decimal, call: Callable[[Decimal], int], more: no.such[name]) -> None: ...


@pytest.mark.parametrize("function", [beside, of_the_result, by_an_alias, around, of_a_class])
@pytest.mark.parametrize("how", [Docket.register, Docket.add])
def test_a_limit_beside_a_hint_that_cannot_be_resolved_is_refused(function: Any, how: Any) -> None:
    """Docket sees none of the function's hints then, and would run its tasks without the limit."""
    docket = Docket(name="shop", url="memory://")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"cannot be resolved \(name 'Decimal' is not"):
            how(docket, function)
    assert function.__name__ not in docket.tasks


@pytest.mark.parametrize("function", [in_a_union, in_a_list, returned])
def test_a_limit_where_docket_does_not_look_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Annotated\[int \| None, ConcurrencyLimit"):
        Docket(name="shop", url="memory://").register(function)


@pytest.mark.parametrize("function", [by_default, outermost, without])
def test_all_others_are_taken(function: Any) -> None:
    docket = Docket(name="shop", url="memory://")
    docket.register(function)
    assert docket.tasks[function.__name__] is function
