"""A FastMCP server whose tools are limited: calls by the middleware, background tasks by Docket.

Each customer has one call of `report` at a time. A call that finds it busy is refused, with an
error of the protocol. `export` runs as a background task; tasks of one customer run one after the
other.

It prints::

    customer 1: report of January
    customer 1: refused (full): All slots of this limit are in use.
    customer 2: report of January
    4 exports, at most 1 at once for a customer, 2 in all
"""

# ruff: noqa: ARG001  (a tool has the arguments that its clients send)

import asyncio
from datetime import timedelta
from typing import Any

from fastmcp import Client, FastMCP
from fastmcp.utilities.tasks import TaskConfig
from fastmcp_tasks import TasksExtension
from fastmcp_tasks.client import call_tool_task  # pyright: ignore[reportUnknownVariableType]
from mcp import MCPError

from limiter_core import ConcurrencyLimit, Limiter
from limiter_docket import ConcurrencyLimit as TaskLimit
from limiter_fastmcp import LimitMiddleware

limiter = Limiter("memory://")
reports = ConcurrencyLimit(["tool", "customer_id"], max_concurrent=1, on_conflict="cancel")

mcp = FastMCP("Shop", middleware=[LimitMiddleware(limiter, reports)])
mcp.add_extension(
    TasksExtension(url="memory://", minimum_check_interval=timedelta(milliseconds=10))
)

now: dict[int, int] = {}
most: dict[int, int] = {}
most_in_all = 0


@mcp.tool
async def report(customer_id: int, month: str) -> str:
    await asyncio.sleep(0.2)
    return f"report of {month}"


# `mode="required"`: only within a task there is a slot. The limit is no argument for clients.
@mcp.tool(task=TaskConfig(mode="required", poll_interval=timedelta(milliseconds=20)))
async def export(
    customer_id: int,
    slot: TaskLimit = TaskLimit("customer_id", max_concurrent=1),  # noqa: B008  (Docket's way)
) -> str:
    global most_in_all
    now[customer_id] = now.get(customer_id, 0) + 1
    most[customer_id] = max(most.get(customer_id, 0), now[customer_id])
    most_in_all = max(most_in_all, sum(now.values()))
    await asyncio.sleep(0.2)
    now[customer_id] -= 1
    return f"exported under {slot.concurrency_key}"


async def call_report(client: Client[Any], customer_id: int) -> str:
    try:
        result = await client.call_tool("report", {"customer_id": customer_id, "month": "January"})
    except MCPError as error:  # error.data["retry_after"]: seconds, where that is known
        return f"customer {customer_id}: refused ({error.data['reason']}): {error.message}"
    return f"customer {customer_id}: {result.data}"


async def main() -> None:
    async with Client(mcp) as client:
        for line in await asyncio.gather(*(call_report(client, each) for each in (1, 1, 2))):
            print(line)
        tasks = [await call_tool_task(client, "export", {"customer_id": n % 2}) for n in range(4)]
        for task in tasks:
            await task.result()
        print(
            f"{len(tasks)} exports, at most {max(most.values())} at once for a customer,", end=" "
        )
        print(f"{most_in_all} in all")
    await limiter.aclose()


asyncio.run(main())
