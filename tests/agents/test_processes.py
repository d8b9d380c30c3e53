"""Agents of several processes under one limit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.test import TestModel

from limiter_core import Limiter
from limiter_pydantic_ai import SharedLimiter
from tests.redis._servers import Server
from tests.redis._tools import until_true

from ._limits import in_use, limit, waiting


@pytest.fixture
def other(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, with an agent that holds the slot until a line comes in."""
    worker = Path(__file__).parent / "workers" / "agent.py"
    process = subprocess.Popen(
        [sys.executable, str(worker), server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"the request runs\n"
        yield process
        process.kill()


async def test_two_processes_share_one_limit(
    server: Server, other: subprocess.Popen[bytes]
) -> None:
    async with Limiter(server.url) as limiter:
        shared = SharedLimiter(limiter, limit())
        agent = Agent(ConcurrencyLimitedModel(TestModel(), limiter=shared))
        run = asyncio.create_task(agent.run("go"))
        await until_true(waiting(limiter, 1), "the run waits for that of the other process")
        assert not run.done()
        assert other.stdin is not None
        other.stdin.write(b"end\n")
        other.stdin.flush()
        await asyncio.wait_for(run, 20)
        await until_true(in_use(limiter, 0), "all slots are released")
    assert await asyncio.to_thread(other.wait, 20) == 0


async def test_the_slot_of_a_killed_process_is_free_when_its_lease_ends(
    server: Server, other: subprocess.Popen[bytes]
) -> None:
    other.kill()
    async with Limiter(server.url) as limiter:
        shared = SharedLimiter(limiter, limit())
        await asyncio.wait_for(shared.acquire("model:a"), 30)
        shared.release()
