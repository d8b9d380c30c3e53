"""Job queues in front of a server that answers what no Redis answers, late, or never.

Whatever it does, each call of a gate ends in time and in its own error, so that the queue keeps the
job; and the gate is as good as new when the server is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from limiter_core import ArgumentView, ConcurrencyLimit, StoreError, StoreUnavailable
from limiter_core.jobs import Held, Job, JobGate, SyncJobGate, Waiting
from limiter_redis import RedisStore

from ._hostile_server import HOSTILE, ONE_OF_EACH, HostileServer, well
from ._servers import Process
from ._tools import until_now, until_true
from .test_hostile_servers import ENDS_IN, give_up, in_a_thread

LIMIT = ConcurrencyLimit("customer", scope="jobs")
OPTIONS = "socket_timeout=0.5"


@pytest.fixture(params=["server", pytest.param("cluster", marks=pytest.mark.exhaustive)])
def kind(request: pytest.FixtureRequest) -> str:
    """One server, or a cluster."""
    return str(request.param)


def store_on(server: HostileServer, kind: str) -> RedisStore:
    return RedisStore(f"{server.url if kind == 'server' else server.cluster_url}?{OPTIONS}")


def job(name: str) -> Job:
    return Job(f"{name}#1", LIMIT, ArgumentView({"customer": 42}, "bill"), name.encode())


async def ends_in_its_own_error(work: Any) -> None:
    async with asyncio.timeout(ENDS_IN):
        with pytest.raises(StoreError):
            await work


@pytest.mark.parametrize("reply", ONE_OF_EACH)
async def test_a_gate_of_an_event_loop(reply: str, kind: str) -> None:
    with HostileServer(HOSTILE[reply]) as server:
        store = store_on(server, kind)
        gate = JobGate(store, "queue", lambda _: None)
        await ends_in_its_own_error(gate.admit(job("first")))
        await ends_in_its_own_error(gate.sweep())
        await ends_in_its_own_error(gate.drop("other#1", ("jobs/customer=42",)))
        async with asyncio.timeout(ENDS_IN):
            await gate.leave()
        server.answer = well
        # What was on its way may take until its time is over.
        await until_true(lambda: is_admitted(gate), "it is admitted when the server is well")
        await give_up(store)


async def is_admitted(gate: JobGate) -> bool:
    try:
        lease: Any = await gate.admit(job("second"))
    except StoreError:
        return False
    assert not isinstance(lease, Waiting | Held)
    await lease.release()
    return True


@pytest.mark.parametrize("reply", ONE_OF_EACH)
def test_a_gate_of_threads(reply: str, kind: str) -> None:
    with HostileServer(HOSTILE[reply]) as server:
        store = store_on(server, kind)
        gate = SyncJobGate(store, "queue", lambda _: None)
        calls: list[Callable[[], object]] = [
            lambda: gate.admit(job("first")),
            gate.sweep,
            lambda: gate.drop("other#1", ("jobs/customer=42",)),
        ]
        for call in calls:
            outcome = in_a_thread(call)
            assert isinstance(outcome, StoreError), outcome
        assert in_a_thread(gate.leave) is None
        server.answer = well
        # A connection that is being made meanwhile may fail still.
        until_now(lambda: is_admitted_by_threads(gate), "it is admitted when the server is well")
        store.close()


def is_admitted_by_threads(gate: SyncJobGate) -> bool:
    lease = in_a_thread(lambda: gate.admit(job("second")))
    if isinstance(lease, StoreError):
        return False
    assert not isinstance(lease, Waiting | Held | Exception), lease
    lease.release()
    return True


async def test_a_frozen_server_keeps_no_gate(own_server: Process) -> None:
    """The job stays with its queue, and gets its slot when the server goes on."""
    store = RedisStore(f"{own_server.url}?{OPTIONS}")
    gate, threads = JobGate(store, "a", lambda _: None), SyncJobGate(store, "b", lambda _: None)
    lease: Any = await gate.admit(job("held"))
    waiting = await gate.admit(job("waits"))
    assert isinstance(waiting, Waiting)
    with own_server.frozen():
        start = time.monotonic()
        for work in (gate.admit(job("late")), gate.handed_over(waiting), gate.sweep()):
            with pytest.raises(StoreUnavailable):
                await work
        for call in (lambda: threads.admit(job("later")), threads.sweep):
            outcome = await asyncio.to_thread(in_a_thread, call)
            assert isinstance(outcome, StoreUnavailable), outcome
        await gate.leave()
        await asyncio.to_thread(threads.leave)
        assert time.monotonic() - start < 5 * ENDS_IN
    gate.arrive()
    await gate.sweep()
    await lease.release()
    lease = await gate.admit(job("waits"))
    assert not isinstance(lease, Waiting | Held)
    await lease.release()
    await store.aclose()


def test_a_job_whose_admission_was_not_received_is_admitted_again(own_server: Process) -> None:
    """It is the same delivery, not another that runs."""
    store = RedisStore(f"{own_server.url}?{OPTIONS}")
    gate = SyncJobGate(store, "queue", lambda _: None)
    gate.admit(job("other")).release()  # type: ignore[union-attr]
    with own_server.frozen():
        assert isinstance(in_a_thread(lambda: gate.admit(job("unheard"))), StoreUnavailable)
    lease: Any = None

    def comes() -> bool:
        nonlocal lease
        lease = gate.admit(job("unheard"))
        return not isinstance(lease, Waiting | Held)

    until_now(comes, "it has its slot")
    lease.release()
    assert list(store.sync_face().keys()) == []
    store.close()
