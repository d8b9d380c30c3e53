"""The instrumentor with readers and exporters in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._telemetry import Telemetry, instrumented


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with instrumented() as made:
        yield made


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param
