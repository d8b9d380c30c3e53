"""Agents under a shared limit: at most two requests to the model at once, whoever makes them.

Six agents share one `SharedLimiter`, and with a Redis URL so do those of other processes. A stream
that is left after its first word gives its slot back at once.

It prints::

    6 of 6 agents answered, at most 2 requests at once
    left after one word: Concurrency, slots in use: 0
    a refusal: 'model' is full: 1 of 1 slots in use
"""

import asyncio
from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.exceptions import ConcurrencyLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.function import AgentInfo, FunctionModel

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_pydantic_ai import SharedLimiter

limiter = Limiter("memory://")  # "redis://..." for the agents of many processes
shared = SharedLimiter(limiter, ConcurrencyLimit(LIMIT_BY.constant("model"), max_concurrent=2))

# -- a model that needs no network -----------------------------------------------------------------

requests = most_requests = 0


async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    global requests, most_requests
    requests += 1
    most_requests = max(most_requests, requests)
    await asyncio.sleep(0.02)
    requests -= 1
    return ModelResponse(parts=[TextPart("Concurrency is not parallelism")])


async def words(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    for word in ("Concurrency", " is", " not", " parallelism"):
        yield word
        await asyncio.sleep(0.02)


model = FunctionModel(respond, stream_function=words)


async def main() -> None:
    agents = [Agent(ConcurrencyLimitedModel(model, limiter=shared)) for _ in range(6)]
    runs = await asyncio.gather(*(agent.run("What is it not?") for agent in agents))
    print(f"{len(runs)} of 6 agents answered, at most {most_requests} requests at once")

    first = ""
    async with agents[0].run_stream("What is it not?") as stream:
        async for word in stream.stream_text(delta=True, debounce_by=None):
            first = word
            break
    in_use = (await limiter.inspect("model")).in_use
    print(f"left after one word: {first}, slots in use: {in_use}")

    one = ConcurrencyLimit(LIMIT_BY.constant("model"), max_concurrent=1, on_conflict="cancel")
    agent = Agent(model, max_concurrency=SharedLimiter(limiter, one))
    try:
        await asyncio.gather(agent.run("What is it not?"), agent.run("What is it not?"))
    except ConcurrencyLimitExceeded as refusal:
        print(f"a refusal: {refusal}")


asyncio.run(main())
