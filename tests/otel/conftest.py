"""The instrumentor with readers and exporters in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from limiter_core import _names
from limiter_core.testing import FakeClock

from ._telemetry import Telemetry, instrumented


@pytest.fixture(autouse=True)
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the names of each test from the first on: a process counts a hundred separately."""
    monkeypatch.setattr(_names, "_counted", {})
    monkeypatch.setattr(_names, "_numbers", itertools.count())


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with instrumented() as made:
        yield made


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until a test moves it."""
    return FakeClock()
