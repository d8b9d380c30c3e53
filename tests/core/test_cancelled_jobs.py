"""Jobs that are cancelled while their gate asks for a slot, in an event loop."""

from __future__ import annotations

import asyncio

import pytest

from limiter_core import Lease
from limiter_core.jobs import BackgroundTasks, JobGate
from limiter_core.requests import Answer, Request
from limiter_core.testing import AwaitedStore
from limiter_memory import MemoryStore

from ._gates import KEY, Faces, job


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("full", [False, True])
async def test_a_cancelled_ask_leaves_no_slot_taken(full: bool, anyio_backend: str) -> None:
    """A slot granted to nobody is given back; a ticket stays, for the job is delivered again."""
    store = MemoryStore()
    face = store.sync_face()
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(AwaitedStore):
        async def acquire(self, request: Request) -> Answer:
            answer = await super().acquire(request)
            if request.id == "second#1":
                reached.set()
                await go_on.wait()
            return answer

    gate = JobGate(Faces(store.sync_face(), Slow(face)), "queue", lambda _: None)
    held = await gate.admit(job("holder")) if full else None
    asking = asyncio.create_task(gate.admit(job("second")))
    await reached.wait()
    asking.cancel()
    await asyncio.sleep(0)
    assert not asking.done(), "it learns the answer before it goes"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    state = face.inspect(KEY)
    if isinstance(held, Lease):
        assert [waiter.id for waiter in state.waiters] == ["second#1"]
        await held.release()
    else:
        assert state.in_use == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_errand_that_was_to_begin_soon_is_waited_for(anyio_backend: str) -> None:
    """The last release of a worker wakes the next job, and then the worker closes."""
    background, done = BackgroundTasks(), []

    async def wake() -> None:
        await asyncio.sleep(0)
        done.append("woken")

    background.begin_soon(wake)
    await background.done(5.0)
    assert done == ["woken"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_outlives_a_store_that_says_nothing(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job at the gate can be stopped, also when the gate gives the store up."""
    monkeypatch.setattr("limiter_core._job_gate.ANSWER_PATIENCE", 0.1)
    reached = asyncio.Event()

    class Silent(AwaitedStore):
        async def acquire(self, request: Request) -> Answer:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    face = MemoryStore().sync_face()
    gate = JobGate(Faces(face, Silent(face)), "queue", lambda _: None, on_store_error="admit")
    asking = asyncio.create_task(gate.admit(job("only")))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
