"""A slot for each tool call of a FastMCP server, with FastMCP's own client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.tools.base import Tool, ToolResult
from fastmcp.utilities.versions import VersionSpec
from mcp import MCPError

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    LimitReached,
    SyncLimiter,
)
from limiter_core.testing import OverlapRecorder
from limiter_fastmcp import LimitMiddleware
from limiter_memory import MemoryStore
from tests.core._tools import PATIENCE, until, until_waiting

from ._server import serving

KEY = "stuck()"


class Tools:
    """A server with limited tools; their calls last until `go_on` is set."""

    def __init__(self, store: Any, limits: Any, **options: Any) -> None:
        self.overlap = OverlapRecorder()
        self.go_on = asyncio.Event()
        self.limiter = Limiter(store, **options)
        self.mcp: FastMCP[Any] = FastMCP(
            "tools", middleware=[LimitMiddleware(self.limiter, limits)]
        )
        self.mcp.tool(self.report)
        self.mcp.tool(self.stuck)
        self.mcp.tool(self.fail)

    async def report(self, customer_id: int, region: str = "eu") -> int:
        with self.overlap.holding("report"):
            await asyncio.sleep(0.001)
        return customer_id

    async def stuck(self, customer_id: int = 0) -> str:
        await self.go_on.wait()
        return "done"

    async def fail(self) -> None:
        raise LimitReached("another", 1, 1)


def limit(by: Any = LIMIT_BY.fn_name, slots: int = 1, **options: Any) -> ConcurrencyLimit:
    return ConcurrencyLimit(by, slots, **options)


async def refusal(client: Client[Any], tool: str, **arguments: Any) -> Any:
    """Return the error of a call, as it came over the protocol."""
    with pytest.raises(MCPError) as caught:
        await client.call_tool(tool, arguments)
    return caught.value.error


# -- what it accepts -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, "memory://", SyncLimiter("memory://")])
def test_what_is_no_limiter_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="LimitMiddleware needs a Limiter, got"):
        LimitMiddleware(wrong, limit())


@pytest.mark.parametrize("wrong", [None, 3, []])
def test_what_is_no_limit_is_refused(store: MemoryStore, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="LimitMiddleware needs a ConcurrencyLimit or"):
        LimitMiddleware(Limiter(store), wrong)


# -- what is held when -----------------------------------------------------------------------------


async def test_calls_are_limited(store: MemoryStore) -> None:
    tools = Tools(store, limit(slots=2))
    async with Client(tools.mcp) as client:
        calls = (client.call_tool("report", {"customer_id": number}) for number in range(12))
        results = await asyncio.gather(*calls)
    assert [result.data for result in results] == list(range(12))
    assert tools.overlap.peak("report") == 2


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_cancels_its_call_gives_the_slot_back(
    store: MemoryStore, mode: Any
) -> None:
    tools = Tools(store, limit())
    async with Client(tools.mcp, mode=mode) as client:
        calls = [asyncio.create_task(client.call_tool("stuck", {})) for _ in range(3)]
        await until_waiting(store, KEY, 2)
        calls[1].cancel()  # which waits
        await until_waiting(store, KEY, 1)
        calls[0].cancel()  # which holds
        await until_waiting(store, KEY, 0)
        assert store.inspect(KEY).in_use == 1
        tools.go_on.set()
        assert (await calls[2]).data == "done"


async def test_a_client_that_is_gone_gives_its_slots_back(store: MemoryStore) -> None:
    tools = Tools(store, limit())
    async with Client(tools.mcp) as client:
        calls = [asyncio.create_task(refusal(client, "stuck")) for _ in range(2)]
        await until_waiting(store, KEY, 1)
    assert {error.message for error in await asyncio.gather(*calls)} == {"Connection closed"}
    await until(lambda: not list(store.keys()), "all slots are free")


async def test_the_errors_of_a_tool_are_its_own(store: MemoryStore) -> None:
    tools = Tools(store, limit())
    async with Client(tools.mcp) as client:
        with pytest.raises(ToolError, match="another"):
            await client.call_tool("fail", {})


async def test_a_tool_that_calls_one_of_the_slot_it_holds_is_told_so(store: MemoryStore) -> None:
    tools = Tools(store, limit(LIMIT_BY.constant("all")))
    tools.go_on.set()

    @tools.mcp.tool
    async def outer(context: Context) -> str:
        return str(await context.fastmcp.call_tool("stuck", {}))

    async with Client(tools.mcp) as client:
        with pytest.raises(ToolError, match="would wait for itself: it already holds 1 of the 1"):
            await client.call_tool("outer", {})


async def test_an_unknown_tool_is_what_it_is_without_a_limit(store: MemoryStore) -> None:
    async with Client(Tools(store, limit()).mcp) as client:
        with pytest.raises(ToolError, match="Unknown tool"):
            await client.call_tool("no_such_tool", {})


class PassedOn(Tool):
    """A tool of another server: its schema is as that wrote it, and need not say any type."""

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(content=str(arguments["customer_id"]))


async def test_a_schema_may_say_that_an_argument_is_anything(store: MemoryStore) -> None:
    tools = Tools(store, limit("customer_id"))
    properties = {"customer_id": {"default": 1}, "details": True}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    tools.mcp.add_tool(PassedOn(name="passed_on", parameters=schema))
    async with Client(tools.mcp) as client:
        answer = await client.call_tool("passed_on", {"customer_id": 42, "details": [1]})
    assert answer.content[0].text == "42"


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"on_conflict": "cancel"}, "full"),
        ({"max_waiting": 0}, "queue_full"),
        ({"timeout": 0.01}, "timeout"),
    ],
)
async def test_a_refusal_is_an_error_of_the_protocol(
    store: MemoryStore, options: Any, reason: str
) -> None:
    tools = Tools(store, limit(name=f"tools {reason}", **options))
    async with Client(tools.mcp) as client:
        holder = asyncio.create_task(client.call_tool("stuck", {}))
        await until(lambda: store.inspect(KEY).in_use == 1, "it holds the slot")
        error = await refusal(client, "stuck")
        expected = {"reason": reason, "limit": f"tools {reason}"}
        assert (error.code, error.data) == (-32000, expected)
        assert "slot" in error.message
        assert "stuck" not in error.message
        tools.go_on.set()
        await holder


async def test_a_refusal_says_when_to_try_again(store: MemoryStore) -> None:
    tools = Tools(store, limit(on_conflict="cancel"))
    async with Client(tools.mcp) as client:
        for _ in range(2):  # the second time it is known how long a call takes
            holder = asyncio.create_task(client.call_tool("stuck", {}))
            await until(lambda: store.inspect(KEY).in_use == 1, "it holds the slot")
            error = await refusal(client, "stuck")
            await asyncio.sleep(0.05)
            tools.go_on.set()
            await holder
            tools.go_on.clear()
    assert 0 < error.data["retry_after"] < PATIENCE


async def test_a_newer_call_takes_the_place(store: MemoryStore) -> None:
    tools = Tools(store, limit(on_conflict="keep_latest"))
    async with Client(tools.mcp) as client:
        holder = asyncio.create_task(client.call_tool("stuck", {}))
        await until(lambda: store.inspect(KEY).in_use == 1, "it holds the slot")
        older = asyncio.create_task(refusal(client, "stuck"))
        await until_waiting(store, KEY, 1)
        newer = asyncio.create_task(client.call_tool("stuck", {}))
        assert (await older).data["reason"] == "superseded"
        tools.go_on.set()
        await asyncio.gather(holder, newer)


async def test_a_call_that_waits_is_evicted(store: MemoryStore) -> None:
    tools = Tools(store, limit())
    async with Client(tools.mcp) as client:
        holder = asyncio.create_task(client.call_tool("stuck", {}))
        await until(lambda: store.inspect(KEY).in_use == 1, "it holds the slot")
        waiter = asyncio.create_task(refusal(client, "stuck"))
        await until_waiting(store, KEY, 1)
        await tools.limiter.evict_waiter(store.inspect(KEY).waiters[0].id)
        assert (await waiter).data["reason"] == "evicted"
        tools.go_on.set()
        await holder


async def test_a_lost_slot_ends_the_tool(store: MemoryStore) -> None:
    tools = Tools(store, limit())
    async with Client(tools.mcp) as client:
        call = asyncio.create_task(refusal(client, "stuck"))
        await until(lambda: store.inspect(KEY).in_use == 1, "it holds the slot")
        await tools.limiter.evict(store.inspect(KEY).holders[0].id)
        assert (await call).data == {"reason": "lost"}


async def test_a_store_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    url = "redis://127.0.0.1:1"  # where nothing listens
    tools = Tools(url, limit(timeout=0.1))
    with caplog.at_level(logging.WARNING, "limiter"):
        async with tools.limiter, Client(tools.mcp) as client:
            error = await refusal(client, "report", customer_id=1)
    assert error.data == {"reason": "unavailable"}
    assert "127.0.0.1" not in error.message
    assert "a tool call was refused, since the store is unavailable" in caplog.text


# -- what strategies see ---------------------------------------------------------------------------


class Seen:
    """A strategy that keeps what it saw."""

    def __init__(self) -> None:
        self.views: list[tuple[str | None, str | None, dict[str, Any]]] = []

    def get_key(self, execution: ArgumentView, /) -> str:
        self.views.append((execution.function_name, execution.adapter, dict(execution)))
        return "seen"


async def test_a_call_has_its_tool_and_its_arguments(store: MemoryStore) -> None:
    seen = Seen()
    async with Client(Tools(store, limit(seen)).mcp) as client:
        await client.call_tool("report", {"customer_id": 7})
    arguments = {"customer_id": 7, "region": "eu"}  # with the default of what was not sent
    assert seen.views == [
        ("report", "fastmcp", {"tool": "report", "arguments": arguments, **arguments})
    ]


async def test_the_defaults_are_those_of_the_version_that_is_called(store: MemoryStore) -> None:
    seen = Seen()
    tools = Tools(store, limit(seen))

    def first(region: str = "eu") -> str:
        return region

    def second(region: str = "us") -> str:
        return region

    tools.mcp.tool(first, name="where", version="1.0")
    tools.mcp.tool(second, name="where", version="2.0")
    async with Client(tools.mcp) as client:
        for version in (None, "1.0", "2.0"):
            result = await client.call_tool("where", {}, version=version)
            assert seen.views.pop()[2]["region"] == result.data
    result = await tools.mcp.call_tool("where", {}, version=VersionSpec(lt="2.0"))
    assert seen.views.pop()[2]["region"] == "eu"


@pytest.mark.parametrize(
    ("by", "key"),
    [
        (LIMIT_BY.fn_name, KEY),
        ("tool", "tool=stuck"),
        ("customer_id", "customer_id=0"),
        ("arguments.customer_id", "arguments.customer_id=0"),
    ],
)
async def test_keys(store: MemoryStore, by: Any, key: str) -> None:
    tools = Tools(store, limit(by))
    async with Client(tools.mcp) as client:
        call = asyncio.create_task(client.call_tool("stuck", {}))
        await until(lambda: list(store.keys()) == [key], f"the key is {key}")
        tools.go_on.set()
        await call


async def test_each_session_of_a_legacy_client_has_a_key(store: MemoryStore) -> None:
    tools = Tools(store, limit("session"))
    async with Client(tools.mcp, mode="legacy") as one, Client(tools.mcp, mode="legacy") as two:
        calls = [asyncio.create_task(each.call_tool("stuck", {})) for each in (one, one, two)]
        await until(lambda: len(list(store.keys())) == 2, "there is a key for each session")
        key = next(key for key in store.keys() if store.inspect(key).in_use)
        assert key.startswith("session=")
        await until(
            lambda: sum(store.inspect(each).waiting for each in store.keys()) == 1, "one waits"
        )
        tools.go_on.set()
        await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("session", "the protocol has no sessions; limit by the user"),
        ("user", "it was not authenticated; there are: arguments, customer_id, region, tool"),
        ("region_id", "has no argument 'region_id'; there are: arguments, customer_id, region"),
    ],
)
async def test_what_a_call_does_not_have_is_an_error_in_the_log(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, by: str, why: str
) -> None:
    async with Client(Tools(store, limit(by)).mcp) as client:
        error = await refusal(client, "report", customer_id=7)
    assert error.code == -32603  # an internal error
    assert why in caplog.text


async def test_a_user_is_known_by_what_the_token_says(store: MemoryStore) -> None:
    """Over HTTP, where tokens are."""
    tools = Tools(store, limit("user", on_conflict="cancel"))
    tools.mcp.auth = StaticTokenVerifier(
        {name: {"client_id": name, "scopes": []} for name in ("ann", "bob")}
    )
    async with (
        serving(tools.mcp) as url,
        Client(url, auth="ann") as ann,
        Client(url, auth="bob") as bob,
    ):
        holder = asyncio.create_task(ann.call_tool("stuck", {}))
        await until(lambda: len(list(store.keys())) == 1, "one call holds a slot")
        assert (await refusal(ann, "stuck")).data["reason"] == "full"
        other = asyncio.create_task(bob.call_tool("stuck", {}))
        await until(lambda: len(list(store.keys())) == 2, "both hold a slot")
        assert all("ann" in key or "bob" in key for key in store.keys())
        tools.go_on.set()
        await asyncio.gather(holder, other)


async def test_a_client_over_http_that_is_gone(store: MemoryStore) -> None:
    tools = Tools(store, limit())
    async with serving(tools.mcp) as url:
        async with Client(url) as client:
            calls = [asyncio.create_task(client.call_tool("stuck", {})) for _ in range(2)]
            await until_waiting(store, KEY, 1)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls, timeout=PATIENCE)
        await until(lambda: not list(store.keys()), "all slots are free")
