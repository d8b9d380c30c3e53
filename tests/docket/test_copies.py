"""Limits are copied and sent, as parts of functions; the lease of a task is not."""

# ruff: noqa: B008

from __future__ import annotations

import copy
import pickle

import pytest
from docket import Docket

from limiter_core import ConfigurationError
from limiter_docket import ConcurrencyLimit
from tests.docket._tools import finish


async def test_a_limit_can_be_copied_and_sent_and_the_lease_of_a_task_cannot(
    docket: Docket,
) -> None:
    """As the default of a function that is sent as a whole."""
    limit = ConcurrencyLimit("n", 2, scope="s", store="redis://localhost:1/0")
    for other in (pickle.loads(pickle.dumps(limit)), copy.copy(limit), copy.deepcopy(limit)):
        assert type(other) is ConcurrencyLimit
        assert other.limit == limit.limit

    errors: list[str] = []

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit("n")) -> None:
        assert copy.copy(c) is c
        with pytest.raises(ConfigurationError) as caught:
            pickle.dumps(c)
        errors.append(str(caught.value))

    await docket.add(bill)(1)
    await finish(docket)
    assert "send its id and its fencing_token" in errors[0]
