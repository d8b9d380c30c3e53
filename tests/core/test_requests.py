"""Values that are made without their classes have all their fields."""

from __future__ import annotations

from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_core.requests import Request
from limiter_memory import MemoryStore


class Watched(MemoryStore):
    """Notes what it is asked and what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []

    def acquire(self, request: Request) -> Any:
        answer = super().acquire(request)
        self.values += [request, *request.demands, answer]
        return answer


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_values_that_are_made_for_every_call_have_all_their_fields() -> None:
    store = Watched()
    limiter = Limiter(store)
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), timeout=0)
    async with limiter.hold(limit):
        with pytest.raises(TimeoutError):
            await Limiter(store).acquire(limit)
    assert {type(value).__name__ for value in store.values} == {
        "Request",
        "Demand",
        "Granted",
        "Queued",
    }
    assert all(len(value) == len(value._fields) for value in store.values)
