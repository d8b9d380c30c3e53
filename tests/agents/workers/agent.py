"""A process with an agent, whose request to the model ends when a line comes in."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.function import AgentInfo, FunctionModel

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_pydantic_ai import SharedLimiter


async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    os.write(1, b"the request runs\n")
    await asyncio.to_thread(sys.stdin.readline)
    return ModelResponse(parts=[TextPart("done")])


async def main() -> None:
    async with Limiter(sys.argv[1]) as limiter:
        shared = SharedLimiter(limiter, ConcurrencyLimit(LIMIT_BY.constant("model"), 1, lease=3))
        agent = Agent(ConcurrencyLimitedModel(FunctionModel(respond), limiter=shared))
        await agent.run("go")


asyncio.run(main())
