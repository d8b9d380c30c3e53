"""Concurrency limits for pydantic-ai: agents and models of many processes share one limit.

    shared = SharedLimiter(limiter, ConcurrencyLimit(LIMIT_BY.constant("model"), 10))
    model = ConcurrencyLimitedModel("openai:gpt-5", limiter=shared)
    agent = Agent(model)

`docs/how-to/pydantic-ai.md` says what is held when.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("pydantic-ai", "limits for pydantic-ai need pydantic-ai"):
    import_module("pydantic_ai.concurrency")

from limiter_pydantic_ai._limiter import SharedLimiter

__all__ = ("SharedLimiter",)
