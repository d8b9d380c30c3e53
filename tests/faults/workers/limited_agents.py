"""Agents of pydantic-ai whose models share a limit; what is inside of the limit is a body."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import ConcurrencyLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

from limiter_core import Limiter, StoreUnavailable
from limiter_core.registry import open_store
from limiter_pydantic_ai import SharedLimiter
from tests.faults.workers.body_notes import LIMITS, Notes, any_key, limit_of

ENDS = ("all", "all", "stream", "stream", "half", "elsewhere", "cancel", "cancel", "refused")
PAUSE = 0.003
SOON = 0.005
"""Seconds that an agent of an impatient limit waits."""


async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    await asyncio.sleep(PAUSE)
    return ModelResponse(parts=[TextPart("part last")])


async def respond_in_parts(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    for text in ("part ", "part ", "last"):
        await asyncio.sleep(PAUSE)
        yield text


class NotedModel(WrapperModel):
    """Notes each request of a model, up to the end of its stream."""

    def __init__(self, model: Any, key: str, notes: Notes) -> None:
        super().__init__(model)
        self._key = key
        self._notes = notes

    async def request(self, *given: Any, **more: Any) -> ModelResponse:
        body = self._notes.begin(self._key)
        try:
            return await super().request(*given, **more)
        finally:
            body.end()

    @asynccontextmanager
    async def request_stream(self, *given: Any, **more: Any) -> AsyncGenerator[Any]:
        body = self._notes.begin(self._key)
        try:
            async with super().request_stream(*given, **more) as stream:
                yield stream
        finally:
            body.end()


class AgentCaller:
    """Runs agents; those of a key share its limit, in this process and in others."""

    def __init__(self, url: str, notes: Notes) -> None:
        self._limiter = Limiter(open_store(url))
        self._agents = {
            (key, timeout): self._agent(key, timeout, notes)
            for key in LIMITS
            for timeout in (None, SOON)
        }

    def _agent(self, key: str, timeout: float | None, notes: Notes) -> Agent[None, str]:
        model = FunctionModel(respond, stream_function=respond_in_parts)
        shared = SharedLimiter(self._limiter, limit_of(key, timeout=timeout))
        return Agent(ConcurrencyLimitedModel(NotedModel(model, key, notes), shared))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._limiter.aclose()

    async def request(self, _port: int) -> str:
        """Run an agent; return how it ended."""
        end = random.choice(ENDS)
        agent = self._agents[any_key(), SOON if end == "refused" else None]
        try:
            async with asyncio.timeout(random.random() * 0.5 if end == "cancel" else None) as own:
                if end in ("all", "refused", "cancel") and random.random() < 0.5:
                    await agent.run("go")
                    return "read"
                if end == "elsewhere":
                    return await self._close_elsewhere(agent.model)
                return await self._run_stream(agent, end)
        except ConcurrencyLimitExceeded:
            return "refused"
        except TimeoutError:
            assert own.expired()
            return "cancelled"
        except StoreUnavailable:
            assert end == "refused"  # a busy machine has no answer so soon
            return "refused"

    async def _run_stream(self, agent: Agent[None, str], end: str) -> str:
        texts = _texts_of(agent)
        async for _ in texts:
            if end == "half":
                break
        await texts.aclose()
        return "half read" if end == "half" else "read"

    async def _close_elsewhere(self, model: Any) -> str:
        """Read a part of a model's stream, and have another task close it.

        Below the agent: it does not allow that, whatever limits it.
        """
        parts = _parts_of(model)
        async for _ in parts:
            break
        await asyncio.create_task(parts.aclose())
        return "half read elsewhere"


async def _texts_of(agent: Agent[None, str]) -> AsyncGenerator[str]:
    async with agent.run_stream("go") as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            yield text


async def _parts_of(model: Any) -> AsyncGenerator[Any]:
    async with model_request_stream(model, [ModelRequest.user_text_prompt("go")]) as stream:
        async for part in stream:
            yield part
