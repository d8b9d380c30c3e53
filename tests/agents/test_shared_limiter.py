"""pydantic-ai's models and agents under a shared limit: how many run, and which slots are left."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ConcurrencyLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    Limiter,
    LimitReached,
    SyncLimiter,
    WaitTimeout,
)
from limiter_pydantic_ai import SharedLimiter
from tests.core._tools import Thread, fork
from tests.redis._servers import Server
from tests.redis._tools import until_true

from ._limits import KEY, in_use, limit, waiting


class Model:
    """A model whose requests end when the test says so; counts those that run at once."""

    def __init__(self) -> None:
        self.running = self.most = self.requests = 0
        self.may_end = asyncio.Event()
        self.model = FunctionModel(self._respond, stream_function=self._stream)

    async def _respond(self, _messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        self._begin()
        try:
            await self.may_end.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        return ModelResponse(parts=[TextPart("done")])

    async def _stream(self, _messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        self._begin()
        try:
            yield "first "
            await self.may_end.wait()
            yield "last"
        finally:
            self.running -= 1

    def _begin(self) -> None:
        self.running += 1
        self.requests += 1
        self.most = max(self.most, self.running)


# -- models and agents -----------------------------------------------------------------------------


async def test_many_agents_share_one_limit_of_a_model(limiter: Limiter) -> None:
    model = Model()
    shared = SharedLimiter(limiter, limit(3))
    agents = [Agent(ConcurrencyLimitedModel(model.model, limiter=shared)) for _ in range(20)]
    runs = [asyncio.create_task(agent.run("go")) for agent in agents]
    await until_true(waiting(limiter, 17), "the others wait")
    model.may_end.set()
    assert [run.output for run in await asyncio.gather(*runs)] == ["done"] * 20
    assert (model.most, model.requests) == (3, 20)
    await until_true(in_use(limiter, 0), "all slots are released")


async def test_runs_of_an_agent_are_limited(limiter: Limiter) -> None:
    model = Model()
    agent = Agent(model.model, max_concurrency=SharedLimiter(limiter, limit(2)))
    runs = [asyncio.create_task(agent.run("go")) for _ in range(6)]
    await until_true(waiting(limiter, 4), "the others wait")
    model.may_end.set()
    await asyncio.gather(*runs)
    assert (model.most, model.requests) == (2, 6)
    await until_true(in_use(limiter, 0), "all slots are released")


async def test_a_run_with_tools_takes_a_slot_for_each_request(limiter: Limiter) -> None:
    model = ConcurrencyLimitedModel(TestModel(), limiter=SharedLimiter(limiter, limit()))
    agent = Agent(model)
    during: list[int] = []

    @agent.tool_plain
    async def look() -> str:
        await until_true(in_use(limiter, 0), "a tool runs without the slot of the model")
        during.append((await limiter.inspect(KEY)).in_use)
        return "seen"

    await agent.run("go")
    assert during == [0]
    await until_true(in_use(limiter, 0), "all slots are released")


async def test_an_agent_in_a_tool_of_another_one_waits_no_longer_than_the_timeout(
    limiter: Limiter,
) -> None:
    shared = SharedLimiter(limiter, limit(timeout=0.05))
    outer, inner = (Agent(TestModel(), max_concurrency=shared) for _ in range(2))

    @outer.tool_plain
    async def ask() -> str:
        return (await inner.run("go")).output

    with pytest.raises(ConcurrencyLimitExceeded, match="1 of 1 slots in use"):
        await outer.run("go")
    await until_true(in_use(limiter, 0), "all slots are released")
    assert (await inner.run("go")).output


@pytest.mark.parametrize("whole", [True, False], ids=["to its end", "left early"])
async def test_a_stream_holds_its_slot_until_it_is_left(limiter: Limiter, whole: bool) -> None:
    model = Model()
    shared = SharedLimiter(limiter, limit())
    agent = Agent(ConcurrencyLimitedModel(model.model, limiter=shared))
    async with agent.run_stream("go") as stream:
        async for _ in stream.stream_text(debounce_by=None):
            assert (await limiter.inspect(KEY)).in_use == 1
            if not whole:
                break
            model.may_end.set()
    await until_true(in_use(limiter, 0), "its slot is released")
    model.may_end.set()
    assert (await agent.run("again")).output == "done"


async def test_a_stream_that_another_task_closes_gives_its_slot_back(limiter: Limiter) -> None:
    model = Model()
    agent = Agent(ConcurrencyLimitedModel(model.model, limiter=SharedLimiter(limiter, limit())))
    context = ConcurrencyLimitedModel(
        model.model, limiter=SharedLimiter(limiter, limit())
    ).request_stream([], None, ModelRequestParameters(), None)
    await asyncio.create_task(context.__aenter__())  # type: ignore[arg-type]
    assert (await limiter.inspect(KEY)).in_use == 1
    model.may_end.set()
    run = asyncio.create_task(agent.run("next"))
    await until_true(waiting(limiter, 1), "the next run waits")
    await asyncio.create_task(context.__aexit__(None, None, None))  # type: ignore[arg-type]
    assert (await run).output == "done"
    await until_true(in_use(limiter, 0), "all slots are released")


async def test_a_run_that_fails_gives_its_slot_back(limiter: Limiter) -> None:
    async def fail(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise LookupError("the model failed")

    shared = SharedLimiter(limiter, limit())
    agent = Agent(ConcurrencyLimitedModel(FunctionModel(fail), limiter=shared))
    with pytest.raises(LookupError):
        await agent.run("go")
    await until_true(in_use(limiter, 0), "its slot is released")


# -- cancellation ----------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_while_it_waits_takes_no_slot(limiter: Limiter) -> None:
    model = Model()
    agent = Agent(ConcurrencyLimitedModel(model.model, limiter=SharedLimiter(limiter, limit())))
    first = asyncio.create_task(agent.run("first"))
    await until_true(in_use(limiter, 1), "the first holds the slot")
    second = asyncio.create_task(agent.run("second"))
    await until_true(waiting(limiter, 1), "the second waits")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await until_true(waiting(limiter, 0), "nobody waits")
    model.may_end.set()
    await first
    await until_true(in_use(limiter, 0), "all slots are released")


@pytest.mark.parametrize("steps", range(12))
async def test_a_run_that_is_cancelled_at_any_step_leaves_no_slot(
    limiter: Limiter, steps: int
) -> None:
    model = Model()
    agent = Agent(ConcurrencyLimitedModel(model.model, limiter=SharedLimiter(limiter, limit())))
    run = asyncio.create_task(agent.run("go"))
    for _ in range(steps):
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until_true(in_use(limiter, 0), "its slot is released")
    model.may_end.set()
    assert (await asyncio.wait_for(agent.run("next"), 20)).output == "done"


# -- release ---------------------------------------------------------------------------------------


async def test_release_works_in_any_thread_and_without_an_event_loop(limiter: Limiter) -> None:
    shared = SharedLimiter(limiter, limit(2))
    await shared.acquire("model:a")
    await shared.acquire("model:b")
    thread = Thread(shared.release)
    await until_true(in_use(limiter, 1), "one slot is released")
    thread.join()
    await asyncio.to_thread(lambda: asyncio.run(_released_in_a_loop(shared)))
    await until_true(in_use(limiter, 0), "the other slot is released")


async def _released_in_a_loop(shared: SharedLimiter) -> None:
    shared.release()


async def test_the_oldest_slot_is_released(limiter: Limiter) -> None:
    shared = SharedLimiter(limiter, limit(2))
    await shared.acquire("model:a")
    (older,) = (await limiter.inspect(KEY)).holders
    await shared.acquire("model:b")
    shared.release()
    await until_true(in_use(limiter, 1), "one slot is released")
    assert older.id not in [holder.id for holder in (await limiter.inspect(KEY)).holders]
    shared.release()


def test_release_works_after_the_event_loop_of_the_slot_was_closed(server: Server) -> None:
    shared = SharedLimiter(Limiter(server.url), limit())
    asyncio.run(shared.acquire("model:a"))
    shared.release()
    asyncio.run(asyncio.wait_for(shared.acquire("model:b"), 20))
    shared.release()


def test_slots_that_are_released_right_before_the_end_are_free(server: Server) -> None:
    async def run_and_end() -> None:
        async with Limiter(server.url) as limiter:
            shared = SharedLimiter(limiter, limit(2))
            for _ in range(2):
                await shared.acquire("model:a")
            for _ in range(2):
                shared.release()

    asyncio.run(run_and_end())
    with SyncLimiter(server.url) as threads:
        assert threads.inspect(KEY).in_use == 0


async def test_a_release_too_many_is_an_error(limiter: Limiter) -> None:
    shared = SharedLimiter(limiter, limit())
    with pytest.raises(RuntimeError, match="more often than acquire"):
        shared.release()


def test_a_forked_child_releases_its_own_slots() -> None:
    shared = SharedLimiter(Limiter("memory://"), limit(2))
    asyncio.run(shared.acquire("model:parent"))
    child = fork()
    if child == 0:
        try:
            shared.release()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shared.release()


async def test_a_copy_has_no_slots_to_release(limiter: Limiter) -> None:
    shared = SharedLimiter(limiter, limit(2))
    await shared.acquire("model:a")
    for other in (copy.copy(shared), copy.deepcopy(shared)):
        with pytest.raises(RuntimeError):
            other.release()
    shared.release()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"timeout": 0.01}, WaitTimeout),
        ({"on_conflict": ConflictResolution.CANCEL}, LimitReached),
        ({"max_waiting": 0}, LimitReached),
    ],
    ids=["timeout", "cancel", "queue full"],
)
async def test_a_refusal_is_also_one_of_pydantic_ai(
    limiter: Limiter, options: dict[str, Any], kind: type[Exception]
) -> None:
    shared = SharedLimiter(limiter, limit(**options))
    agent = Agent(TestModel(), max_concurrency=shared)
    await shared.acquire("model:a")
    with pytest.raises(ConcurrencyLimitExceeded, match="1 of 1 ") as refused:
        await agent.run("go")
    assert isinstance(refused.value, kind)
    again = pickle.loads(pickle.dumps(refused.value))
    assert (type(again), str(again)) == (type(refused.value), str(refused.value))
    shared.release()


async def test_numbers_may_look_at_the_source(limiter: Limiter) -> None:
    seen: list[str] = []

    def numbers(call: Any) -> int:
        seen.append(call["source"])
        return 1

    agent = Agent(
        TestModel(), name="planner", max_concurrency=SharedLimiter(limiter, limit(numbers))
    )
    await agent.run("go")
    assert set(seen) == {"agent:planner"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ConcurrencyLimit("source", 1), "limit with one key.*LIMIT_BY.constant"),
        (ConcurrencyLimit(max_concurrent=1), "limit with one key.*fn_name"),
        (ConcurrencyLimit(LIMIT_BY.fn(lambda call: call["source"]), 1), "limit with one key"),
        (
            ConcurrencyLimit(LIMIT_BY.constant("a") & LIMIT_BY.fn_argument("source"), 1),
            "limit with one key",
        ),
        (limit(5, cost=lambda _: 2), "whose cost is a number"),
        (limit(1, on_conflict=ConflictResolution.CANCEL_RUNNING), "cannot preempt"),
        ([limit(), limit()], "needs one ConcurrencyLimit"),
        (3, "SharedLimiter needs a ConcurrencyLimit"),
    ],
    ids=["argument", "function", "function of the call", "both", "cost", "preempts", "two", "3"],
)
def test_a_limit_whose_slots_are_not_alike_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SharedLimiter(Limiter("memory://"), wrong)


def test_constants_together_are_one_key() -> None:
    together = LIMIT_BY.constant("a") & LIMIT_BY.constant("b")
    SharedLimiter(Limiter("memory://"), ConcurrencyLimit(together, 1))


def test_it_needs_a_limiter_for_event_loops() -> None:
    with pytest.raises(ConfigurationError, match="SharedLimiter needs a Limiter, got"):
        SharedLimiter(SyncLimiter("memory://"), limit())  # type: ignore[arg-type]
