"""A FastMCP server over HTTP, in the loop of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastmcp import FastMCP

from tests.core._tools import PATIENCE, until


@asynccontextmanager
async def serving(mcp: FastMCP[Any]) -> AsyncIterator[str]:
    """Serve on a free port; the URL."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        mcp.http_app(), lifespan="on", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([bound]))  # without handlers of signals
    try:
        await until(lambda: server.started, "the server has started")
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done(), "the server still runs"
