"""FastMCP's background tasks run on Docket: its limits apply to them, the middleware does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.utilities.tasks import TaskConfig
from fastmcp_tasks import TasksExtension
from fastmcp_tasks.client import ToolTask, call_tool_task

from limiter_core import LIMIT_BY, Limiter
from limiter_core import ConcurrencyLimit as Limit
from limiter_core.testing import OverlapRecorder
from limiter_docket import ConcurrencyLimit
from limiter_fastmcp import LimitMiddleware
from limiter_memory import MemoryStore
from tests.core._tools import until

TASK = TaskConfig(mode="required", poll_interval=timedelta(milliseconds=20))
PER_CUSTOMER = ConcurrencyLimit("customer_id", max_concurrent=1)


class Tools:
    """A server whose tools run as tasks."""

    def __init__(self, name: str, **options: Any) -> None:
        self.overlap = OverlapRecorder()
        self.go_on = asyncio.Event()
        self.mcp: FastMCP[Any] = FastMCP("tools", **options)
        soon = timedelta(milliseconds=10)
        self.mcp.add_extension(
            TasksExtension(url="memory://", name=name, minimum_check_interval=soon)
        )
        self.mcp.tool(self.limited, task=TASK)
        self.mcp.tool(self.unlimited, task=TASK)

    async def limited(self, customer_id: int, slot: ConcurrencyLimit = PER_CUSTOMER) -> str:
        with self.overlap.holding(slot.concurrency_key):
            await asyncio.sleep(0.02)
        return slot.concurrency_key

    async def unlimited(self, number: int) -> int:
        with self.overlap.holding("unlimited"):
            await self.go_on.wait()
        return number

    @asynccontextmanager
    async def client(self, mode: Any = "auto") -> AsyncIterator[Client[Any]]:
        async with Client(self.mcp, mode=mode) as client:
            yield client


async def start(client: Client[Any], tool: str, **arguments: Any) -> ToolTask:
    return await call_tool_task(client, tool, arguments)


async def test_a_limit_of_docket_applies_to_the_body() -> None:
    tools = Tools("limited")
    async with tools.client() as client:
        tasks = [await start(client, "limited", customer_id=number % 2) for number in range(6)]
        results = [await task.result() for task in tasks]
    assert [result.data for result in results] == ["customer_id=0", "customer_id=1"] * 3
    for key in ("customer_id=0", "customer_id=1"):
        assert len(tools.overlap.intervals(key)) == 3
        tools.overlap.assert_within(key, 1)


async def test_the_limit_is_no_argument_of_the_tool() -> None:
    tool = await Tools("schema").mcp.get_tool("limited")
    assert tool is not None
    assert set(tool.parameters["properties"]) == {"customer_id"}


async def test_the_middleware_does_not_limit_the_body(store: MemoryStore) -> None:
    one = Limit(LIMIT_BY.fn_name, 1, on_conflict="cancel")
    tools = Tools("unlimited", middleware=[LimitMiddleware(Limiter(store), one)])
    async with tools.client() as client:
        tasks = [await start(client, "unlimited", number=number) for number in range(2)]
        await until(lambda: tools.overlap.peak("unlimited") == 2, "both run at once")
        assert not list(store.keys()), "a task that is queued holds no slot"
        tools.go_on.set()
        assert [(await task.result()).data for task in tasks] == [0, 1]


async def test_a_client_without_tasks_is_refused() -> None:
    """Outside of a task the limit cannot be taken, and without it the tool does not run."""
    tools = Tools("foreground")
    tools.mcp.tool(tools.limited, name="both", task=True)
    async with tools.client("legacy") as client:
        for tool in ("limited", "both"):
            with pytest.raises(
                Exception, match=r"requires the tasks extension|dependency 'slot'"
            ) as e:
                await client.call_tool(tool, {"customer_id": 1})
            assert tool == "limited" or isinstance(e.value, ToolError)
    assert not tools.overlap.intervals("customer_id=1")
