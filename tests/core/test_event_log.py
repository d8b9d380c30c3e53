"""The log of calls: each event with its fields, and a warning about those that wait for long."""

from __future__ import annotations

import logging

import anyio
import pytest

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    SyncLimiter,
    events,
)
from limiter_core.durations import duration_text
from limiter_core.jobs import Job
from limiter_memory import MemoryStore

from ._events import EventRecorder
from ._gates import ONE as OF_CUSTOMER
from ._gates import Gate, job
from ._tools import Thread, until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


async def test_calls_are_logged_at_debug(
    limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "limiter")
    async with limiter.hold(ONE):
        assert await limiter.try_acquire(ONE) is None
    # Others may log meanwhile, as asyncio does when a step of an earlier loop took long.
    records = [vars(record) for record in caplog.records if record.name == "limiter"]
    found = [(record["outcome"], record["key"]) for record in records]
    assert found == [("granted", "one"), ("full", "one"), ("released", "one")]
    assert records[0]["waited"] == 0
    assert records[2]["held"] > 0


@pytest.mark.parametrize("seconds", [0.05, 1.5])
async def test_a_call_that_waits_for_long_is_logged_once(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    holder, waiter = Limiter(store, label="web-1"), Limiter(store, warn_after=seconds)
    lease = await holder.acquire(ONE)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            await (await waiter.acquire(ONE)).release()

        tasks.start_soon(wait)
        await until(lambda: "place 1 of 1 in line" in caplog.text, "the warning")
        await lease.release()
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "a call waits for 'one'" in record.message
    assert f"for {duration_text(vars(record)['waited'])} so far" in record.message
    assert "for 0 s" not in record.message
    assert "1 of 1 slots in use, held by web-1" in record.message
    assert vars(record)["place"] == 1
    assert vars(record)["outcome"] == "waiting"


def test_a_thread_that_waits_for_long_is_logged_once(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = SyncLimiter(store, warn_after=0.05)
    lease = limiter.acquire(ONE)
    thread = Thread(lambda: limiter.acquire(ONE))
    until_now(lambda: "place 1 of 1 in line" in caplog.text, "the warning")
    lease.release()
    thread.result().release()
    assert caplog.text.count("a call waits for 'one'") == 1


def test_the_warning_names_the_limit(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), name="billing")
    limiter = SyncLimiter(store, warn_after=0.05)
    lease = limiter.acquire(limit)
    thread = Thread(lambda: limiter.acquire(limit))
    until_now(lambda: "a call waits for 'one' (billing) for " in caplog.text, "the warning")
    lease.release()
    thread.result().release()


@pytest.mark.parametrize("given", [0, -1, "60", float("inf")])
def test_warn_after_is_seconds(given: object) -> None:
    with pytest.raises(ConfigurationError, match="warn_after must be"):
        Limiter(warn_after=given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("is_observed", [False, True])
def test_a_log_of_warnings_has_the_losses_of_jobs_alone(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, kind: str, is_observed: bool
) -> None:
    gate = Gate(kind, store, "arq:shop")
    caplog.set_level(logging.WARNING, "limiter")
    seen = EventRecorder()
    remove = limiter_core.observe(seen) if is_observed else lambda: None
    asking = Job(
        "2", OF_CUSTOMER, ArgumentView({"customer": 42}, "shop.bill"), b"2", None, "bill(2)"
    )
    first = gate.take(job("1"))
    gate.park(asking)
    gate.release(first)
    lease = gate.take(asking)
    store.evict(lease.id)
    if gate._runner is not None:
        gate.sweep()  # its event loop runs

    def of_this_test() -> list[logging.LogRecord]:
        # Beside them, another test's limiter may still notify in the background.
        return [each for each in caplog.records if "customer=42" in each.message]

    until_now(of_this_test, "the line of the loss")
    remove()
    gate.close()
    (record,) = of_this_test()
    assert record.message.startswith("bill(2) lost its slot of 'customer=42'")
    assert record.levelno == logging.WARNING
    assert len(seen.all(events.Granted)) == (2 if is_observed else 0)
