"""Many requests at once, each with another end: never above the limit, and all slots are free."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import anyio
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit
from tests.core._tools import PATIENCE, OverlapRecorder, until
from tests.http_clients._server import Server
from tests.http_clients.conftest import Client

THREE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=3)
ENDS = ("read", "closed unread", "closed half read", "read timeout", "cancelled", "broken", "empty")


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # those of the clients
@pytest.mark.parametrize("seed", [1, 2])
async def test_any_end(client: Client, server: Server, seed: int) -> None:
    chance, overlap, http = random.Random(seed), OverlapRecorder(), client.asynchronous(THREE)
    server.failures = 1000
    wait = client.module.Timeout(PATIENCE)

    async def use(end: str, seconds: float) -> None:
        path = {"read": "/whole", "broken": "/flaky", "empty": "/empty"}.get(end, "/drip")
        timeout = client.module.Timeout(PATIENCE, read=seconds) if "time" in end else wait
        cancelled_after = seconds if end == "cancelled" else PATIENCE
        with anyio.move_on_after(cancelled_after), suppress(client.module.TransportError):
            async with http.stream("GET", server.url + path, timeout=timeout) as response:
                with overlap.inside("one"):
                    await read(response, end)

    async def read(response: Any, end: str) -> None:
        if end == "closed half read":
            assert await anext(response.aiter_raw()) == b"first"
        elif end != "closed unread":
            await response.aread()

    async with http, anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(use, chance.choice(ENDS), chance.uniform(0.001, 0.05))
    await until(lambda: client.in_use() == 0, "all slots are free")
    assert overlap.entered > 10
    assert overlap.highest["one"] <= 3
